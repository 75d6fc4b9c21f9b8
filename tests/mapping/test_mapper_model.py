"""Any statements of one transaction against a naive table: the record changes are the difference before → after.

The oracle keeps whole rows in a dictionary and does not track them as the mapping does.
"""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import event, given, settings

from cdc_merge.mapping.mapping_result import MappingResult
from cdc_merge.model import (
    UNKNOWN,
    Change,
    RecordKey,
)
from tests.mapping.naive_table import NAMES, TABLE, Line, Table, map_table, worlds


def by_key(rows: Mapping[int, Line]) -> dict[str, int]:
    return {line.no: number for number, line in rows.items()}


@settings(max_examples=600, deadline=None)
@given(worlds())
def test_the_changes_are_exactly_the_difference(world: tuple[str, Table]) -> None:
    identity, table = world
    event(identity)
    result = map_table(table)
    changes = {change.key: change for change in result.changes}
    held, holding = by_key(table.before), by_key(table.rows)
    assert len(changes) == len(result.changes)
    assert result.parked == ()
    for key in held.keys() | holding.keys() | changes.keys():
        check_record(table, result, key, changes.get(key))
    stamps = [change.stamp for change in result.changes]
    assert stamps == sorted(stamps)
    assert result.clock.counter == len(table.changes) - 1 or not table.changes


def check_record(table: Table, result: MappingResult, key: str, change: Change | None) -> None:
    was, now = by_key(table.before).get(key), by_key(table.rows).get(key)
    assert was is not None or now is not None, f"{key} existed only inside the transaction"
    if now is None:
        assert change is not None
        assert (change.operation, dict(change.fields)) == ("delete", {})
        gone_to = table.rows.get(was if was is not None else -1)
        assert change.moved_to == (gone_to.no if gone_to else None)
        return
    before = None if was is None else table.before[was]
    after = table.rows[now]
    if change is None:
        assert before is not None
        assert before[2:] == after[2:]
        return
    assert change.operation == ("insert" if before is None else "update")
    came_from = table.before.get(now)
    assert change.moved_from == (came_from.no if before is None and came_from else None)
    assert change.moved_to is None
    check_fields(table, result, change, before, after)


def check_fields(table: Table, result: MappingResult, change: Change, before: Line | None, after: Line) -> None:
    source = result.previous_keys.get(RecordKey("customer", change.key))
    shown = before if source is None else table.before[by_key(table.before)[source]]
    for field in ("phone", "bio"):
        was, value = change.fields.get(field, (UNKNOWN, getattr(shown, field, None)))
        assert value == getattr(after, field)
        assert was is UNKNOWN or was == getattr(before, field)
    if change.operation == "update" and table.relation.identity == "f":
        assert all(was not in (UNKNOWN, value) for was, value in change.fields.values())


@settings(max_examples=300, deadline=None)
@given(worlds())
def test_the_remembered_identities_are_those_of_the_table(world: tuple[str, Table]) -> None:
    identity, table = world
    result = map_table(table)
    if identity != "by id":
        assert result.identities == {}
        return
    remembered: dict[str, str | None] = {line.id: line.no for line in table.before.values()}
    remembered.update(result.identities.get(TABLE, {}))
    assert {name: key for name, key in remembered.items() if key} == {line.id: line.no for line in table.rows.values()}


@settings(max_examples=300, deadline=None)
@given(worlds())
def test_whole_rows_teach_every_field_of_a_record_that_was_touched(world: tuple[str, Table]) -> None:
    identity, table = world
    if identity != "full":
        return
    held, holding = by_key(table.before), by_key(table.rows)
    for change in map_table(table, whole_rows=True).changes:
        if change.operation != "update":
            continue
        before, after = table.before[held[change.key]], table.rows[holding[change.key]]
        assert change.fields == {name: (getattr(before, name), getattr(after, name)) for name in ("phone", "bio")}


@settings(max_examples=200, deadline=None)
@given(worlds())
def test_stamp_and_place_are_those_of_a_row_change_of_that_record(world: tuple[str, Table]) -> None:
    identity, table = world
    index = NAMES.index("no")
    for change in map_table(table).changes:
        assert change.place.ordinal == change.stamp.counter
        row_change = table.changes[change.place.ordinal]
        keys = {cells[index] for cells in (row_change.old, row_change.new) if cells is not None}
        assert change.key.encode() in keys or identity == "by id"  # whose old rows do not show the key
