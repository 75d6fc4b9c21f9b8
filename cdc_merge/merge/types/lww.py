"""lww: the latest stamp wins; the losers stay readable in the history. Any type of value."""

from __future__ import annotations

from cdc_merge.merge import register_ops
from cdc_merge.merge.types import mv

TYPE = mv.TYPE._replace(name="lww", conflicting_writes=register_ops.no_conflicts)
