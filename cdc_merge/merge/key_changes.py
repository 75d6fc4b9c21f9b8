"""Changes of the business key: where a record's rows moved to, and when that is a conflict (`key_change`).

The conflict stands under the old key. Two cases: sources moved the record to different keys, neither having seen the other; or
a source moved it onto a record that another source held. The second needs the records of the new keys: without them only
the first is detected. It ends when the sources have moved their rows to one key, or when one of two holders has deleted
its row. A swap makes no moves (the mapping reports it as updates), and a row that made the same move is no rival.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cdc_merge.merge.record_state import PRESENT, Delete, Record, Row
from cdc_merge.merge.writes import MISSING
from cdc_merge.model import INSERT, Candidate, Change, DetectedConflict, Stamp


def previous_keys(record: Record) -> set[str]:
    """The keys that the record's rows had before they moved here."""
    return {
        row.entered_by.moved_from
        for row in record.rows.values()
        if row.entered_by is not None and row.entered_by.moved_from is not None
    }


def new_keys(record: Record) -> set[str]:
    """The keys that rows of this record have moved to."""
    return {delete.change.moved_to or "" for delete in key_moves(record)} if record.deletes or record.moves else set()


def key_moves(record: Record) -> list[Delete]:
    """The moves away from this key that no other delete has seen, in stamp order."""
    deletes = (*record.deletes, *record.moves)
    moved = [delete for delete in deletes if delete.change.moved_to is not None]
    seen = frozenset[object]().union(*[delete.seen_deletes for delete in deletes])
    return sorted((d for d in moved if d.stamp not in seen), key=lambda d: d.stamp)


def destination(delete: Delete, targets: Mapping[str, Record]) -> str:
    """The present key of the moved row, as far as the targets show: it may have moved on."""
    key = delete.change.moved_to or ""
    for _ in targets:
        target = targets.get(key)
        further = [d for d in key_moves(target) if d.source == delete.source] if target is not None else []
        if not further:
            break
        key = further[-1].change.moved_to or ""
    return key


def key_change(record: Record, targets: Mapping[str, Record], severity: str) -> Iterator[DetectedConflict]:
    """The conflict about a record's new key. `targets`: the records of the new keys, as far as they are loaded."""
    moved = [(delete, destination(delete, targets)) for delete in key_moves(record)]
    keys = {key for _, key in moved}
    away = [(delete, at) for delete, key in moved if (at := _present_key(delete, key, keys, targets)) is not None]
    rivals = {rival for delete, key in away for rival in _rivals(record, delete, targets.get(key))}
    if not rivals and len({key for _, key in away}) < 2:
        return
    candidates = rivals | {_candidate(delete.source, delete.change, key) for delete, key in away}
    yield DetectedConflict(
        entity=record.units.entity.name,
        key=record.key,
        field=None,
        group=None,
        kind="key_change",
        severity=severity,
        candidates=tuple(sorted(candidates, key=lambda candidate: (candidate.stamp, candidate.source))),
    )


def _present_key(delete: Delete, key: str, keys: set[str], targets: Mapping[str, Record]) -> str | None:
    """The key that a moved row stands under: the move's, or another key of the record's moves where it was deleted under that
    one. None where it stands under neither."""
    target = targets.get(key)
    if target is None or delete.source not in target.rows or _has_row(target, delete.source):
        return key
    return next((other for other in sorted(keys) if _has_row(targets.get(other), delete.source)), None)


def _has_row(target: Record | None, source: str) -> bool:
    row = None if target is None else target.rows.get(source)
    return row is not None and row.presence == PRESENT


def _rivals(record: Record, delete: Delete, target: Record | None) -> Iterator[Candidate]:
    """The sources that held the record of the new key when the row arrived there, and hold it still."""
    mover = target.rows.get(delete.source) if target is not None else None
    if target is None or mover is None or mover.presence != PRESENT or mover.entered_by is None:
        return
    if mover.entered_by.moved_from != record.key:
        return
    same_move = {record.key, _old_key(record.rows.get(delete.source))} - {""}
    for source, row in target.rows.items():
        rival = source != delete.source and row.presence == PRESENT and _old_key(row) not in same_move
        if rival and row.entered_by is not None and _held_before(target, source, delete.stamp):
            yield _candidate(source, row.entered_by, target.key)


def _old_key(row: Row | None) -> str:
    """The key that a row had before it moved here; "" where it did not move."""
    return "" if row is None or row.entered_by is None else row.entered_by.moved_from or ""


def _held_before(target: Record, source: str, move: Stamp) -> bool:
    """A row without an insert was there before anything was read; so was one that was only entered again since, after a
    TRUNCATE."""
    row = target.rows[source]
    if row.inserted is not None:
        return row.inserted.stamp < move
    if row.entered_by is None or row.entered_by.operation != INSERT or row.entered_by.stamp < move:
        return True
    states = [state.by_source[source] for state in target.unit_states.values() if source in state.by_source]
    return any(at_source.snapshot_key is not MISSING for at_source in states)


def _candidate(source: str, change: Change, value: str | None) -> Candidate:
    return Candidate(source, value, change.stamp, change.committed_us, change.actor, change.place)
