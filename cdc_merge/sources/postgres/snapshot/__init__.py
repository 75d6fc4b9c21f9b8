"""Initial snapshot (COPY at the slot's consistent point) and incremental snapshot (chunks in watermark windows)."""
