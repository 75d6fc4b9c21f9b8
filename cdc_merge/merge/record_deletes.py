"""Deletes of a record and their causality: what a delete has seen, which deletes still count, new incarnations (§4).

A delete counts until an insert that has seen it starts a new incarnation. Data structure: `record.deletes`, a list of dots with
their contexts; `record.seen_deletes`, the context of each source over them. Where deletes are local, a delete ends its source's
copy alone; only the moves of rows to other keys count (`record.moves`).
"""

from __future__ import annotations

from cdc_merge.merge import waiting_copies
from cdc_merge.merge.record_state import DELETED, NO_STAMPS, PRESENT, Delete, Record
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.writes import MISSING
from cdc_merge.model import DECISION_SOURCE, TRUNCATE, Change, Stamp


def apply_delete(record: Record, change: Change, source: str) -> None:
    if source == DECISION_SOURCE:
        _decided_delete(record, change)
        return
    row = record.row(source)
    is_local = change.operation == TRUNCATE or record.units.entity.deletes == "local"
    row.presence, row.kept, row.reinserted_by_copy = DELETED, change.operation == TRUNCATE, False
    row.deleted = not is_local and change.copy is None
    record.refresh()
    if is_local:
        if not row.kept:
            _local_delete(record, change, source)
        return
    if change.copy is None:
        _genuine_delete(record, change, source)
    else:
        _copied_delete(record, change, source)
    for state in record.unit_states.values():
        state.clear_value(source)
    for name in [name for name in record.map_keys if name[1] == source]:
        del record.map_keys[name]


def start_incarnation(record: Record, source: str, *, ends_values: bool) -> None:
    """An insert where the source held no row has seen the deletes of all sources that hold none. The old values end with
    them (`ends_values`), except for the first edit of a row that a copy brought back, which leaves other columns alone."""
    over = [d for d in record.deletes if record.is_absent(d.source)]
    see_moves(record, source)
    _see_absent_sources(record, source)
    if not over:
        return
    wins = record.units.entity.deletes == "delete_wins"
    record.deletes = [d for d in record.deletes if d not in over]
    seen = record.seen_deletes.get(source, NO_STAMPS)
    for delete in over:
        seen |= delete.seen_deletes | {delete.stamp}
        for name, state in record.unit_states.items():
            unit = record.unit_of[name]
            if ends_values and (delete.source == DECISION_SOURCE or record.units.maps(delete.source, unit)):
                unit.type.end(state, delete.stamp, source, wins)
                if wins:
                    state.see_everything(delete.source)
                state.join_inserts(source, delete.source, record.last or delete.stamp if wins else delete.stamp)
        forget_delete(record, delete)
    record.seen_deletes[source] = seen


def see_moves(record: Record, source: str) -> None:
    """A new row under the key has seen the moves of all sources that hold none."""
    over = [move for move in record.moves if record.is_absent(move.source) or move.source == source]
    if not over:
        return
    record.moves = [move for move in record.moves if move not in over]
    for move in over:
        _see_delete(record, source, move)


def _see_absent_sources(record: Record, source: str) -> None:
    """An insert has also seen what the genuine deletes of absent sources had seen that an earlier incarnation has seen."""
    for other, row in record.rows.items():
        if not row.deleted or row.presence == PRESENT or row.last is None:
            continue
        for name, state in record.unit_states.items():
            if other in state.by_source and record.units.maps(other, record.unit_of[name]):
                later = sum([w.bit for w in state.writes_in(state.frontier) if w.stamp > row.last])
                state.at(source).seen |= state.seen_by(other) & ~later
                state.join_inserts(source, other, row.last)


def forget_delete(record: Record, delete: Delete) -> None:
    """The units forget the delete's context; the caller takes it from `record.deletes`."""
    for state in record.unit_states.values():
        if delete.stamp in state.deletes:
            del state.deletes[delete.stamp]


def forget_own_deletes(record: Record, source: str) -> None:
    record.moves = [move for move in record.moves if move.source != source]
    for delete in [d for d in record.deletes if d.source == source]:
        record.deletes.remove(delete)
        forget_delete(record, delete)


# ---------------------------------------------------------------- local deletes


def _local_delete(record: Record, change: Change, source: str) -> None:
    """It ends that source's copy alone. Its move is kept: two sources may have moved the row to different keys."""
    for state in record.unit_states.values():
        state.note_local_delete(source)
    seen = record.seen_deletes.get(source, NO_STAMPS)
    if change.copy is not None:
        for move in record.moves:
            _see_delete(record, source, move)
    elif change.moved_to is not None:
        record.moves.append(Delete(change, source, seen))
        record.seen_deletes[source] = seen | {change.stamp}


# ---------------------------------------------------------------- genuine deletes


def _genuine_delete(record: Record, change: Change, source: str) -> None:
    _forget_seen_deletes(record)
    delete = Delete(change, source, record.seen_deletes.get(source, NO_STAMPS))
    if not _answers_waiting_deletes(record, delete):
        record.deletes.append(delete)
    record.seen_deletes[source] = delete.seen_deletes | {delete.stamp}
    for name, state in record.unit_states.items():
        unit = record.unit_of[name]
        unit.type.record_delete_context(state, delete.stamp, source, not record.units.maps(source, unit))


def _forget_seen_deletes(record: Record) -> None:
    """Contexts keep only the deletes that still count."""
    count = frozenset([delete.stamp for delete in (*record.deletes, *record.moves)])
    record.seen_deletes = {source: seen & count for source, seen in record.seen_deletes.items()}


def _answers_waiting_deletes(record: Record, delete: Delete) -> bool:
    """Marked deletes of other sources waited for this one: their sources have seen it since. True when one of them has
    started a new incarnation in between, which then dominates this delete."""
    waited = [
        (source, since)
        for source, since in record.waiting_deletes
        if source != delete.source and _is_within_wait(record, since, delete.stamp)
    ]
    record.waiting_deletes = []
    for source, since in waited:
        _see_delete(record, source, delete)
        for name, state in record.unit_states.items():
            _answer_waiting_delete(record, name, delete, (source, since))
            waiting_copies.see_since(state, source, since, state.seen_by(delete.source))
    return any(not (record.is_absent(source) or record.rows[source].reinserted_by_copy) for source, _ in waited)


def _answer_waiting_delete(record: Record, name: str, delete: Delete, waited: tuple[str, Stamp]) -> None:
    """The source's writes since its marked delete have seen the original; the value that this delete took away is
    overwritten."""
    state, (source, since) = record.unit_states[name], waited
    at_source = state.by_source.get(source)
    taken = MISSING if at_source is None or at_source.before_delete is None else at_source.before_delete[1]
    for write in list(state.writes_in(state.frontier)):
        if write.source == source and write.stamp > since:
            write.deletes = write.deletes | {delete.stamp}
        elif write.source == source and write.key == taken and not write.bit & state.seen_by(delete.source):
            if not state.traits.overwrites:
                continue
            state.overwrite(write)
            record.unsettled[name] = None


def _is_within_wait(record: Record, earlier: Stamp, later: Stamp) -> bool:
    return later.wall_us - earlier.wall_us <= record.max_ahead_us


def _see_delete(record: Record, source: str, delete: Delete) -> None:
    record.seen_deletes[source] = record.seen_deletes.get(source, NO_STAMPS) | delete.seen_deletes | {delete.stamp}


# ---------------------------------------------------------------- decided and copied deletes


def _decided_delete(record: Record, change: Change) -> None:
    """A decision to delete has seen everything, the other deletes included."""
    seen = frozenset[Stamp]().union(*[d.seen_deletes | {d.stamp} for d in record.deletes])
    for delete in record.deletes:
        forget_delete(record, delete)
    record.deletes = [Delete(change, DECISION_SOURCE, seen)]
    for name, state in record.unit_states.items():
        record.unit_of[name].type.record_delete_context(state, change.stamp, DECISION_SOURCE, True)  # noqa: FBT003


def _copied_delete(record: Record, change: Change, source: str) -> None:
    """A marked delete repeats every delete that counts, and overwrites the source's own edits that these had not seen. Where
    there is none, it waits `max_ahead` for one, as other copies do."""
    if not record.deletes:
        record.waiting_deletes.append((source, change.stamp))
    for delete in record.deletes:
        _see_delete(record, source, delete)
        for name, state in record.unit_states.items():
            _overwrite_unseen(record, (name, state), source, delete)
            state.at(source).seen |= state.deletes.get(delete.stamp, 0)


def _overwrite_unseen(record: Record, named: tuple[str, UnitState], source: str, delete: Delete) -> None:
    """Only types whose copies overwrite; types that join keep the source's edits."""
    name, state = named
    for write in list(state.writes_in(state.frontier)) if state.traits.overwrites else ():
        has_value = write.source == source and write.key == state.key_at(source)
        if has_value and delete.is_concurrent_with(write, state):
            state.overwrite(write)
            record.unsettled[name] = None
