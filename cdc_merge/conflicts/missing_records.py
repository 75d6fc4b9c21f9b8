"""Missing records: which sources lack a record (`on_missing: report`). Counted and listed, no conflict by itself (semantics §4).

A record is missing in a source of its entity that does not have it while another has, unless the record has ended. A
delete shows that, or a complete initial snapshot; about a source without an initial snapshot nothing can be said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cdc_merge.conflicts.tracked_record import TrackedRecord
from cdc_merge.merge.record_state import PRESENT, Record
from cdc_merge.merge.views import ended
from cdc_merge.model import RecordKey
from cdc_merge.model.ports import StoreTransaction

REPORT = "report"


def missing_sources(record: Record, copied: Iterable[str]) -> dict[str, int]:
    """The sources that lack the record, and since when (µs of stamp time). `copied`: those with a complete initial snapshot."""
    is_present = any(row.presence == PRESENT for row in record.rows.values())
    if not is_present or record.last is None or ended(record):
        return {}
    missing = {}
    for source in record.units.entity.sources:
        row = record.rows.get(source)
        if row is None and source in copied:
            missing[source] = record.last.wall_us
        elif row is not None and row.presence != PRESENT:
            missing[source] = (row.last or record.last).wall_us
    return missing


def save_missing_sources(
    tx: StoreTransaction, touched: Mapping[RecordKey, TrackedRecord], copied: Iterable[str]
) -> None:
    """Save which sources lack the records of a batch. A source that never had a record lacks it since the first report."""
    reported = {key: entry.record for key, entry in touched.items() if entry.record.units.entity.on_missing == REPORT}
    if not reported:
        return
    saved = tx.missing_of(reported)
    changed = {}
    for key, record in reported.items():
        before = saved.get(key, {})
        after = {
            source: before.get(source, since_us) if source not in record.rows else since_us
            for source, since_us in missing_sources(record, copied).items()
        }
        if after != before:
            changed[key] = after
    tx.save_missing(changed)
