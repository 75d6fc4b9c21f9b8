"""Changes of the business key: where a record's rows went, and when that is a question (`key_change`).

It stands under the old key. Two cases: sources moved the record to different keys, neither having seen the other; or a
source moved it onto a record that another source held. The second needs the records of the new keys: without them only
the first is asked. It ends when the sources have moved their rows to one key, or when one of two holders has gone. A
swap makes no moves (the mapping tells it as updates), and who came by the same move is no rival.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cdc_merge.merge.record_state import PRESENT, Delete, Record, Row
from cdc_merge.merge.writes import MISSING
from cdc_merge.model import INSERT, Candidate, Change, DetectedConflict, Stamp


def previous_keys(record: Record) -> set[str]:
    """The keys that the record's rows had before they moved here."""
    return {row.by.moved_from for row in record.rows.values() if row.by is not None and row.by.moved_from is not None}


def new_keys(record: Record) -> set[str]:
    """The keys that rows of this record have moved to."""
    return {delete.change.moved_to or "" for delete in key_moves(record)} if record.deletes or record.moves else set()


def key_moves(record: Record) -> list[Delete]:
    """The moves away from this key that nothing has seen, in stamp order."""
    moved = [delete for delete in (*record.deletes, *record.moves) if delete.change.moved_to is not None]
    seen = frozenset[object]().union(*[delete.known for delete in (*record.deletes, *record.moves)])
    return sorted((d for d in moved if d.stamp not in seen), key=lambda d: d.stamp)


def destination(delete: Delete, targets: Mapping[str, Record]) -> str:
    """The key under which the row stands at present, as far as the targets tell: it may have moved on."""
    key = delete.change.moved_to or ""
    for _ in targets:
        target = targets.get(key)
        further = [d for d in key_moves(target) if d.source == delete.source] if target is not None else []
        if not further:
            break
        key = further[-1].change.moved_to or ""
    return key


def key_change(record: Record, targets: Mapping[str, Record], severity: str) -> Iterator[DetectedConflict]:
    """The question about a record's new key. `targets`: the records of the new keys, as far as they are known."""
    went = [(delete, destination(delete, targets)) for delete in key_moves(record)]
    keys = {key for _, key in went}
    away = [(delete, at) for delete, key in went if (at := _stands(delete, key, keys, targets)) is not None]
    rivals = {rival for delete, key in away for rival in _rivals(record, delete, targets.get(key))}
    if not rivals and len({key for _, key in away}) < 2:
        return
    found = rivals | {_candidate(delete.source, delete.change, key) for delete, key in away}
    yield DetectedConflict(
        entity=record.units.entity.name,
        key=record.key,
        field=None,
        group=None,
        kind="key_change",
        severity=severity,
        candidates=tuple(sorted(found, key=lambda candidate: (candidate.stamp, candidate.source))),
    )


def _stands(delete: Delete, key: str, keys: set[str], targets: Mapping[str, Record]) -> str | None:
    """Where the row of a move stands: under that key, or, gone from there, under another key that the record moved to; None: nowhere."""
    target = targets.get(key)
    if target is None or delete.source not in target.rows or _is_there(target, delete.source):
        return key
    return next((other for other in sorted(keys) if _is_there(targets.get(other), delete.source)), None)


def _is_there(target: Record | None, source: str) -> bool:
    row = None if target is None else target.rows.get(source)
    return row is not None and row.presence == PRESENT


def _rivals(record: Record, delete: Delete, target: Record | None) -> Iterator[Candidate]:
    """Who held the record of the new key when the row came there, and holds it still."""
    mover = target.rows.get(delete.source) if target is not None else None
    if target is None or mover is None or mover.presence != PRESENT or mover.by is None:
        return
    if mover.by.moved_from != record.key:
        return
    way = {record.key, _old_key(record.rows.get(delete.source))} - {""}
    for source, row in target.rows.items():
        rival = source != delete.source and row.presence == PRESENT and _old_key(row) not in way
        if rival and row.by is not None and _held_before(target, source, delete.stamp):
            yield _candidate(source, row.by, target.key)


def _old_key(row: Row | None) -> str:
    """The key that a row had before it moved to where it is; "" where it did not move."""
    return "" if row is None or row.by is None else row.by.moved_from or ""


def _held_before(target: Record, source: str, move: Stamp) -> bool:
    """A row that no insert began was there before anything was read; so was one that was only entered again since, after
    a TRUNCATE."""
    row = target.rows[source]
    if row.inserted is not None:
        return row.inserted.stamp < move
    if row.by is None or row.by.operation != INSERT or row.by.stamp < move:
        return True
    sides = [cell.sides[source] for cell in target.cells.values() if source in cell.sides]
    return any(side.first_key is not MISSING for side in sides)


def _candidate(source: str, change: Change, value: str | None) -> Candidate:
    return Candidate(source, value, change.stamp, change.committed_us, change.actor, change.place)
