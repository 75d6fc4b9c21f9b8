"""lww, a last-writer-wins register: among concurrent writes the latest stamp. The others stay in the history. Any value type."""

from __future__ import annotations

from cdc_merge.merge import register_ops
from cdc_merge.merge.types import mv

TYPE = mv.TYPE._replace(name="lww", conflicting_writes=register_ops.no_conflicts)
