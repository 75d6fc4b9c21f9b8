"""Which records a source lacks (`on_missing: report`): told, counted and listed, but no conflict by itself (semantics §4).

A record is missing in a source of its entity that does not have it while another has, unless the record has ended. A
source says so by a delete, or by its finished first copy; of one that was never copied nobody knows what it lacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cdc_merge.merge.record_state import PRESENT, Record
from cdc_merge.merge.views import ended
from cdc_merge.model import RecordKey
from cdc_merge.model.ports import StoreTransaction
from cdc_merge.worker.record_cache import CachedRecord

REPORT = "report"


def missing_sources(record: Record, copied: Iterable[str]) -> dict[str, int]:
    """The sources that lack the record, and since when (µs of stamp time). `copied`: those whose first copy is complete."""
    held = any(row.presence == PRESENT for row in record.rows.values())
    if not held or record.last is None or ended(record):
        return {}
    found = {}
    for source in record.units.entity.sources:
        row = record.rows.get(source)
        if row is None and source in copied:
            found[source] = record.last.wall_us
        elif row is not None and row.presence != PRESENT:
            found[source] = (row.last or record.last).wall_us
    return found


def note_missing(tx: StoreTransaction, touched: Mapping[RecordKey, CachedRecord], copied: Iterable[str]) -> None:
    """Keep which sources lack the records of a batch. A source that never had one lacks it since that was first told."""
    asked = {key: entry for key, entry in touched.items() if entry.record.units.entity.on_missing == REPORT}
    if not asked:
        return
    kept = tx.missing_of(asked)
    found = {}
    for key, entry in asked.items():
        known = kept.get(key, {})
        now = {
            source: known.get(source, since_us) if source not in entry.record.rows else since_us
            for source, since_us in missing_sources(entry.record, copied).items()
        }
        if now != known:
            found[key] = now
    tx.save_missing(found)
