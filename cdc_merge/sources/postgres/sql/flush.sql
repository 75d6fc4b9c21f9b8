-- Has the server write out its WAL: one small record of ours, flushed at its commit. PUBLIC may execute it by default.
SELECT pg_logical_emit_message(true, 'cdc_merge.flush', '')::text
