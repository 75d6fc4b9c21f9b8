"""Who is still standing: frontiers, live deletes, and what is contested."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cdc_merge.model import DECISION_SOURCE
from tests.laws.oracle.words import ADDS, AUTOMATIC, DELETED, PRESENT, Delete, Record, Unit, Write

JOINS = ADDS | {"set"}
"""§4: a delete takes what it has seen out of the frontier, "not of counters, sets and logs"."""


def unseen(unit: Unit) -> list[Write]:
    """Writes that no other write of the field has seen, overwritten ones included."""
    return [
        write
        for write in unit.writes.values()
        if not any(write.id in other.seen for other in unit.writes.values() if other is not write)
    ]


def frontier(unit: Unit) -> list[Write]:
    """§1 frontier: "the writes of a field that no other write of that field has seen"; an overwritten write "leaves the
    frontier"; §4: a new life "ends the old values"."""
    return [w for w in unseen(unit) if w.id not in unit.overwritten and w.id not in unit.ended]


def live_deletes(record: Record) -> list[Delete]:
    """Deletes that nothing has seen: no new life of the record, no write of any field, no other delete."""
    standing = [delete for delete in record.deletes.values() if not delete.overwritten and not delete.outlived]
    return [delete for delete in standing if not _is_seen(record, delete, standing)]


def _is_seen(record: Record, delete: Delete, standing: Iterable[Delete]) -> bool:
    by_delete = any(delete.id in seen for other in standing if other is not delete for seen in other.seen.values())
    return by_delete or any(delete.id in write.seen for unit in record.units for write in unit.writes.values())


def maps(unit: Unit, source: str) -> bool:
    return source == DECISION_SOURCE or source in unit.sources


def standing(record: Record, unit: Unit) -> list[Write]:
    """The frontier without what a live delete of a source that maps the field has seen (§4: "a delete is an edit with
    `seen` like any other"); `delete_wins`: "it dominates what it had not seen" too."""
    return frontier(unit) if unit.plan.merge in JOINS else untaken(record, unit)


def untaken(record: Record, unit: Unit) -> list[Write]:
    """What no live delete has taken out."""
    live = [delete for delete in live_deletes(record) if maps(unit, delete.source)]
    wins = record.entity.deletes == "delete_wins"
    return [
        write
        for write in frontier(unit)
        if not any(write.id in delete.seen[unit.name] or (wins and delete.id not in write.seen) for delete in live)
    ]


def readable(record: Record, unit: Unit) -> list[Write]:
    """What the value is read from: "the record stays readable" while a delete is opposed."""
    return standing(record, unit) or frontier(unit)


def opposers(record: Record, delete: Delete) -> list[tuple[Unit, Write]]:
    """§4: "a delete is opposed by a write it had not seen whose writer had not seen the delete, inserts included"."""
    return [
        (unit, write)
        for unit in record.units
        for write in untaken(record, unit)
        if write.kind != "baseline" and write.id not in delete.seen[unit.name] and delete.id not in write.seen
    ]


def has_ended(record: Record) -> bool:
    """§4: "an unopposed delete ends the merged record"; "a record that no source holds has ended"."""
    states = [record.presence[source] for source in record.entity.sources]
    if PRESENT not in states and DELETED in states:
        return True
    wins = record.entity.deletes == "delete_wins"
    return any(wins or not opposers(record, delete) for delete in live_deletes(record))


def differing(unit: Unit, writes: Iterable[Write]) -> bool:
    values: list[Any] = []
    for write in writes:
        if not any(unit.same(write.value, value) for value in values):
            values.append(write.value)
    return len(values) > 1


def decided(writes: Iterable[Write]) -> bool:
    return any(write.source == DECISION_SOURCE for write in writes)


def contested(record: Record, unit: Unit) -> bool:
    """Whether a concurrent_* question of a field that is read from its frontier is open now."""
    if has_ended(record):
        return False
    writes = readable(record, unit)
    return differing(unit, writes) and (unit.plan.merge not in AUTOMATIC or decided(writes))
