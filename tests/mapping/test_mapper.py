"""The record changes of one transaction: keys, fields, stamps, re-keys, identities, actors, copies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal

import pytest

from cdc_merge.mapping.mapper import Mapper
from cdc_merge.mapping.mapping_result import MappingResult, Truncated
from cdc_merge.model import (
    UNCHANGED,
    UNKNOWN,
    Change,
    Column,
    Copy,
    Message,
    Parked,
    Place,
    RawValue,
    RecordKey,
    Relation,
    RowChange,
    SnapshotBegan,
    SnapshotRows,
    Stamp,
    Transaction,
)
from cdc_merge.model.plan import EntityPlan, FieldPlan, Plan, TableMap

TABLE = "public.customer"
NOW = 1_790_000_000_000_000
CLOCK = Stamp(0, 0, "crm")
COLUMNS = {"id": 23, "no": 25, "phone": 25, "points": 1700, "bio": 25, "updated_by": 25}

Row = Mapping[str, str | None]


def relation(identity: str = "full", **types: int) -> Relation:
    """`identity`: full, or the names of its columns."""
    names = COLUMNS.keys() if identity == "full" else set(identity.split())
    columns = tuple(Column(name, oid, "", name in names) for name, oid in (types or COLUMNS).items())
    return Relation(1, "public", "customer", "f" if identity == "full" else "d", columns)


FULL, BY_KEY, BY_ID = relation(), relation("no"), relation("id")


def table_map(**more: object) -> TableMap:
    settings: dict[str, object] = {
        "source": "crm",
        "entity": "customer",
        "table": TABLE,
        "key": ("no",),
        "fields": {"phone": "phone", "points": "points", "bio": "bio"},
    }
    return TableMap(**(settings | more))  # type: ignore[arg-type] # a test's keyword arguments


def cells(of: Relation, row: Row | None) -> tuple[RawValue, ...] | None:
    if row is None:
        return None
    return tuple(_cell(row.get(column.name)) for column in of.columns)


def _cell(text: str | None) -> RawValue:
    if text == "<toast>":
        return UNCHANGED
    return None if text is None else text.encode()


def row(key: str | None, phone: str | None = "1", points: str | None = "5", **more: str | None) -> Row:
    return {"id": "1", "no": key, "phone": phone, "points": points, "bio": "b", "updated_by": "wang"} | more


class Statements:
    """Row changes of one table, as the stream would send them."""

    def __init__(self, of: Relation = FULL) -> None:
        self._of = of
        self.changes: list[RowChange] = []

    def insert(self, new: Row) -> Statements:
        return self._add("insert", None, False, new)

    def update(self, old: Row | None, new: Row) -> Statements:
        return self._add("update", old, old is not None and self._of.identity == "f", new)

    def delete(self, old: Row) -> Statements:
        return self._add("delete", old, self._of.identity == "f", None)

    def truncate(self) -> Statements:
        return self._add("truncate", None, False, None)

    def _add(self, operation: str, old: Row | None, is_full: bool, new: Row | None) -> Statements:
        ordinal = len(self.changes)
        change = RowChange(operation, self._of, cells(self._of, old), is_full, cells(self._of, new), ordinal)
        self.changes.append(change)
        return self


def mapper(*tables: TableMap, whole_rows: bool = False, plan: Plan | None = None) -> Mapper:
    tables = tables or (table_map(),)
    return Mapper("crm", tables, plan or Plan({}, tables), whole_rows=whole_rows)


def transaction(
    changes: Sequence[RowChange],
    *messages: tuple[str, bytes],
    origin: str | None = None,
    commit_us: int = NOW,
) -> Transaction:
    said = tuple(Message(prefix, content, True) for prefix, content in messages)
    return Transaction("crm", "7", 1, 4711, commit_us, origin, said, tuple(changes))


def mapped(statements: Statements, by: Mapper | None = None, known: Mapping[str, str] | None = None) -> MappingResult:
    remembered = {(TABLE, identity): key for identity, key in (known or {}).items()}
    return (by or mapper()).map_transaction(transaction(statements.changes), CLOCK, NOW, remembered)


def only(result: MappingResult) -> Change:
    assert len(result.changes) == 1, result
    return result.changes[0]


def operations_by_key(result: MappingResult) -> dict[str, str]:
    """key → what happened, with the links of a re-key."""
    return {
        change.key: change.operation + "".join(f" {name} {key}" for name, key in _links(change))
        for change in result.changes
    }


def _links(change: Change) -> list[tuple[str, str]]:
    return [(name, key) for name, key in (("to", change.moved_to), ("from", change.moved_from)) if key is not None]


# ---------------------------------------------------------------- fields


def test_an_update_with_a_complete_old_row_has_only_the_changed_fields() -> None:
    change = only(mapped(Statements().update(row("C1", "1"), row("C1", "2"))))
    assert change.operation == "update"
    assert change.fields == {"phone": ("1", "2")}


def test_numbers_that_differ_only_in_form_are_no_change() -> None:
    assert mapped(Statements().update(row("C1", points="1.0"), row("C1", points="1.00"))).changes == ()


def test_an_update_of_unmapped_columns_is_no_change_but_takes_a_stamp() -> None:
    result = mapped(Statements().update(row("C1"), row("C1", updated_by="li")).update(row("C2"), row("C2", "2")))
    assert only(result).stamp == Stamp(NOW, 1, "crm")


def test_without_an_old_row_every_sent_field_is_in_the_change_and_before_is_unknown() -> None:
    change = only(mapped(Statements(BY_KEY).update(None, row("C1", None, bio="<toast>"))))
    assert change.fields == {"phone": (UNKNOWN, None), "points": (UNKNOWN, Decimal(5))}


def test_an_old_key_tuple_knows_the_identity_columns() -> None:
    of = relation("no points")
    old = {"no": "C1", "points": "4", "phone": None}
    change = only(mapped(Statements(of).update(old, row("C1"))))
    assert change.fields["points"] == (Decimal(4), Decimal(5))
    assert change.fields["phone"] == (UNKNOWN, "1")


def test_an_old_key_tuple_that_differs_only_in_form_is_no_change() -> None:
    of = relation("no points")
    result = mapped(Statements(of).update({"no": "C1", "points": "5.0"}, row("C1", points="5.00")))
    assert "points" not in only(result).fields


def test_an_insert_has_every_field_null_included() -> None:
    change = only(mapped(Statements().insert(row("C1", None))))
    assert change.operation == "insert"
    assert change.fields == {"phone": (UNKNOWN, None), "points": (UNKNOWN, Decimal(5)), "bio": (UNKNOWN, "b")}


def test_a_delete_has_no_field() -> None:
    change = only(mapped(Statements().delete(row("C1"))))
    assert (change.operation, change.fields, change.actor) == ("delete", {}, None)


def test_an_unchanged_toasted_value_is_no_write() -> None:
    change = only(mapped(Statements().update(row("C1", bio="long"), row("C1", "2", bio="<toast>"))))
    assert change.fields == {"phone": ("1", "2")}


def test_whole_rows_teach_unchanged_fields_too() -> None:
    result = mapped(Statements().update(row("C1", "1"), row("C1", "2", bio="<toast>")), mapper(whole_rows=True))
    assert only(result).fields == {"phone": ("1", "2"), "points": (Decimal(5), Decimal(5)), "bio": ("b", "b")}


def test_a_field_of_another_column_type_becomes_the_fields_type() -> None:
    entity = EntityPlan("customer", ("crm",), {}, {"no": FieldPlan("no", value_type="text")})
    table = table_map(key=("id",), fields={"no": "points", "points": "points"})
    change = only(mapped(Statements().insert(row("C1")), mapper(table, plan=Plan({"customer": entity}, (table,)))))
    assert change.fields == {"no": (UNKNOWN, "5"), "points": (UNKNOWN, Decimal(5))}


# ---------------------------------------------------------------- stamps and places


def test_the_rows_of_one_transaction_count_on_from_its_commit() -> None:
    result = mapped(Statements().insert(row("C1")).insert(row("C2")))
    assert [change.stamp for change in result.changes] == [Stamp(NOW, 0, "crm"), Stamp(NOW, 1, "crm")]
    assert result.clock == Stamp(NOW, 1, "crm")
    assert [change.place for change in result.changes] == [Place("7", 1, 4711, TABLE, number) for number in (0, 1)]


def test_a_commit_time_that_goes_back_does_not_take_the_stamp_back() -> None:
    tx = transaction(Statements().insert(row("C1")).changes, commit_us=NOW - 10)
    change = only(mapper().map_transaction(tx, Stamp(NOW, 3, "crm"), NOW, {}))
    assert change.stamp == Stamp(NOW, 4, "crm")
    assert change.committed_us == NOW - 10


def test_a_commit_from_the_future_is_cut_and_reported_with_the_amount() -> None:
    hour = 3_600_000_000
    tx = transaction(Statements().insert(row("C1")).changes, commit_us=NOW + hour)
    result = mapper().map_transaction(tx, CLOCK, NOW, {})
    assert only(result).stamp == Stamp(NOW + 5_000_000, 0, "crm")
    assert only(result).committed_us == NOW + hour
    assert result.clock_cut_us == hour - 5_000_000


def test_rows_of_unmapped_tables_take_no_stamp() -> None:
    other = FULL._replace(name="other")
    changes = [*Statements(other).insert(row("C1")).changes, *Statements().insert(row("C1")).changes]
    result = mapper().map_transaction(transaction(changes), CLOCK, NOW, {})
    assert only(result).stamp == Stamp(NOW, 0, "crm")


def test_an_empty_transaction_leaves_the_clock_alone() -> None:
    assert mapped(Statements()).clock == CLOCK


# ---------------------------------------------------------------- several changes of one record count as one


def test_a_field_set_twice_is_one_write_of_the_second_value() -> None:
    result = mapped(Statements().update(row("C1", "1"), row("C1", "2")).update(row("C1", "2"), row("C1", "3")))
    change = only(result)
    assert change.fields == {"phone": ("1", "3")}
    assert (change.stamp.counter, change.place.ordinal) == (1, 1)


def test_a_field_that_returns_to_its_first_value_was_not_written() -> None:
    there_and_back = Statements().update(row("C1", "1"), row("C1", "2")).update(row("C1", "2"), row("C1", "1"))
    assert mapped(there_and_back).changes == ()


@pytest.mark.parametrize("of", [FULL, BY_KEY])
def test_insert_and_update_are_an_insert(of: Relation) -> None:
    old = row("C1", "1") if of is FULL else None
    change = only(mapped(Statements(of).insert(row("C1", "1")).update(old, row("C1", "2", bio="<toast>"))))
    assert change.operation == "insert"
    assert change.fields == {"phone": (UNKNOWN, "2"), "points": (UNKNOWN, Decimal(5)), "bio": (UNKNOWN, "b")}


@pytest.mark.parametrize("of", [FULL, BY_KEY])
def test_what_existed_only_inside_the_transaction_never_existed(of: Relation) -> None:
    assert mapped(Statements(of).insert(row("C1")).delete(row("C1"))).changes == ()


@pytest.mark.parametrize("of", [FULL, BY_KEY])
def test_update_and_delete_are_a_delete(of: Relation) -> None:
    old = row("C1", "1") if of is FULL else None
    change = only(mapped(Statements(of).update(old, row("C1", "2")).delete(row("C1", "2"))))
    assert (change.operation, change.fields, change.place.ordinal) == ("delete", {}, 1)


def test_delete_and_insert_of_one_key_are_an_update() -> None:
    change = only(mapped(Statements().delete(row("C1", "1")).insert(row("C1", "2"))))
    assert (change.operation, change.fields) == ("update", {"phone": ("1", "2")})


def test_delete_and_insert_without_the_old_values_have_the_whole_row() -> None:
    change = only(mapped(Statements(BY_KEY).delete(row("C1", "1")).insert(row("C1", "2"))))
    assert change.operation == "update"
    assert change.fields == {"phone": (UNKNOWN, "2"), "points": (UNKNOWN, Decimal(5)), "bio": (UNKNOWN, "b")}


def test_delete_and_insert_of_the_same_row_are_nothing() -> None:
    assert mapped(Statements().delete(row("C1")).insert(row("C1"))).changes == ()


def test_other_records_of_the_transaction_follow_in_order_of_their_stamps() -> None:
    statements = Statements().update(row("C1", "1"), row("C1", "2")).insert(row("C2"))
    result = mapped(statements.update(row("C1", "2"), row("C1", "3")).insert(row("C3")))
    assert [(change.key, change.stamp.counter) for change in result.changes] == [("C2", 1), ("C1", 2), ("C3", 3)]


# ---------------------------------------------------------------- re-keys


def test_a_change_of_the_key_is_a_delete_and_an_insert_that_know_each_other() -> None:
    result = mapped(Statements().update(row("C1", "1"), row("C2", "1")))
    assert operations_by_key(result) == {"C1": "delete to C2", "C2": "insert from C1"}
    ended, begun = result.changes
    assert ended.fields == {}
    assert begun.fields == {"phone": (UNKNOWN, "1"), "points": (UNKNOWN, Decimal(5)), "bio": (UNKNOWN, "b")}
    assert ended.stamp == begun.stamp
    assert result.previous_keys == {}


def test_scenario_20_a_row_born_and_moved_twice_is_just_an_insert_under_its_last_key() -> None:
    statements = Statements().insert(row("1")).update(row("1"), row("2")).update(row("2"), row("3"))
    result = mapped(statements)
    assert operations_by_key(result) == {"3": "insert"}
    assert only(result).fields["points"] == (UNKNOWN, Decimal(5))


def test_a_chain_of_keys_links_the_first_to_the_last() -> None:
    result = mapped(Statements().update(row("1"), row("2")).update(row("2"), row("3")))
    assert operations_by_key(result) == {"1": "delete to 3", "3": "insert from 1"}


def test_a_key_that_is_restored_is_an_update() -> None:
    result = mapped(Statements().update(row("1", "a"), row("2", "a")).update(row("2", "a"), row("1", "b")))
    assert operations_by_key(result) == {"1": "update"}
    assert only(result).fields == {"phone": ("a", "b")}


@pytest.mark.parametrize("of", [FULL, BY_KEY, BY_ID])
def test_scenario_22_two_swapped_keys_are_two_updates_without_links(of: Relation) -> None:
    one, two = row("1", "a", id="1"), row("2", "b", id="2")

    def rekeyed(old: Row, key: str) -> Row:
        return {**old, "no": key}

    statements = Statements(of)
    for old, key in ((one, "tmp"), (two, "1"), (rekeyed(one, "tmp"), "2")):
        statements.update(None if of is BY_ID else old, rekeyed(old, key))
    result = mapped(statements, known={"1": "1", "2": "2"})
    assert operations_by_key(result) == {"1": "update", "2": "update"}
    after = {change.key: change.fields["phone"][1] for change in result.changes}
    assert after == {"1": "b", "2": "a"}
    if of is FULL:
        assert {change.key: change.fields for change in result.changes} == {
            "1": {"phone": ("a", "b")},
            "2": {"phone": ("b", "a")},
        }


@pytest.mark.parametrize("of", [FULL, BY_ID])
def test_keys_swapped_through_a_deferred_constraint_are_two_updates(of: Relation) -> None:
    one, two = row("1", "a", id="1"), row("2", "b", id="2")
    statements = Statements(of)
    for old, key in ((one, "2"), (two, "1")):
        statements.update(None if of is BY_ID else old, {**old, "no": key})
    result = mapped(statements, known={"1": "1", "2": "2"})
    assert operations_by_key(result) == {"1": "update", "2": "update"}
    assert {change.key: change.fields["phone"][1] for change in result.changes} == {"1": "b", "2": "a"}
    assert {change.stamp.counter for change in result.changes} == {1}, "the last row change of both"


def test_scenario_25_a_re_key_carries_an_unchanged_toasted_value() -> None:
    whole = mapped(Statements().update(row("1", bio="long"), row("2", bio="<toast>")))
    assert whole.changes[1].fields["bio"] == (UNKNOWN, "long")
    assert whole.previous_keys == {}
    by_key = mapped(Statements(BY_KEY).update({"no": "1"}, row("2", bio="<toast>")))
    assert operations_by_key(by_key) == {"1": "delete to 2", "2": "insert from 1"}
    assert "bio" not in by_key.changes[1].fields
    assert by_key.previous_keys == {RecordKey("customer", "2"): "1"}


def test_swapped_rows_name_the_key_that_unsent_values_come_from() -> None:
    one, two = row("1", "a", bio="<toast>"), row("2", "b", bio="<toast>")
    statements = Statements(BY_KEY)
    for old, key in ((one, "tmp"), (two, "1"), ({**one, "no": "tmp"}, "2")):
        statements.update({"no": old["no"]}, {**old, "no": key})
    result = mapped(statements)
    assert result.previous_keys == {RecordKey("customer", "1"): "2", RecordKey("customer", "2"): "1"}


def test_a_key_taken_over_from_a_row_that_moved_on_is_an_update() -> None:
    result = mapped(Statements().update(row("2", "b"), row("3", "b")).update(row("1", "a"), row("2", "a")))
    assert operations_by_key(result) == {"1": "delete to 2", "2": "update", "3": "insert from 2"}


def test_a_numeric_key_written_in_another_form_is_the_same_key() -> None:
    table = table_map(key=("points",), fields={"phone": "phone"})
    result = mapped(Statements().update(row("C1", "1", "7.0"), row("C1", "2", "7.00")), mapper(table))
    assert operations_by_key(result) == {"7": "update"}


def test_a_re_key_keeps_the_part_of_the_key_that_was_not_sent() -> None:
    by = mapper(table_map(key=("no", "bio"), fields={"phone": "phone"}))
    result = mapped(Statements().update(row("1", bio="long"), row("2", bio="<toast>")), by)
    assert operations_by_key(result) == {"1,long": "delete to 2,long", "2,long": "insert from 1,long"}


def test_a_composite_key_is_its_parts_percent_encoded() -> None:
    result = mapped(Statements().insert(row("C,1", "0 1")), mapper(table_map(key=("no", "phone"))))
    assert only(result).key == "C%2C1,0%201"


# ---------------------------------------------------------------- identities


def test_an_insert_and_a_snapshot_name_a_surrogate_identity() -> None:
    result = mapped(Statements(BY_ID).insert(row("C1", id="9")))
    assert result.identities == {TABLE: {"9": "C1"}}
    assert only(result).identity == "9"
    began = SnapshotBegan("crm", "7", 1, 4000, NOW, {})
    change = RowChange("snapshot", BY_ID, None, False, cells(BY_ID, row("C1", id="9")), 0)
    assert mapper().map_snapshot(SnapshotRows("crm", (change,)), began, CLOCK).identities == {TABLE: {"9": "C1"}}


def test_a_delete_by_surrogate_identity_finds_its_record_and_forgets_the_identity() -> None:
    statements = Statements(BY_ID).delete({"id": "9"})
    assert mapper().identities_to_look_up(statements.changes) == {TABLE: {"9"}}
    result = mapped(statements, known={"9": "C1"})
    assert (only(result).key, only(result).operation, only(result).identity) == ("C1", "delete", "9")
    assert result.identities == {TABLE: {"9": None}}


def test_a_re_key_by_surrogate_identity_knows_the_key_before() -> None:
    statements = Statements(BY_ID).update(None, row("C2", id="9"))
    assert mapper().identities_to_look_up(statements.changes) == {TABLE: {"9"}}
    result = mapped(statements, known={"9": "C1"})
    assert operations_by_key(result) == {"C1": "delete to C2", "C2": "insert from C1"}
    assert result.identities == {TABLE: {"9": "C2"}}


def test_an_update_that_does_not_send_the_key_belongs_to_the_key_that_is_known() -> None:
    result = mapped(Statements(BY_ID).update(None, row("<toast>", id="9")), known={"9": "C1"})
    assert operations_by_key(result) == {"C1": "update"}


def test_an_identity_that_is_known_already_is_not_remembered_again() -> None:
    assert mapped(Statements(BY_ID).update(None, row("C1", id="9")), known={"9": "C1"}).identities == {}
    assert mapped(Statements(BY_ID).update(None, row("C1", id="9"))).identities == {TABLE: {"9": "C1"}}


def test_a_changed_surrogate_identity_keeps_its_record() -> None:
    result = mapped(Statements(BY_ID).update({"id": "9"}, row("C1", id="10")), known={"9": "C1"})
    assert operations_by_key(result) == {"C1": "update"}
    assert only(result).identity == "10"
    assert result.identities == {TABLE: {"9": None, "10": "C1"}}


def test_a_row_that_only_changes_its_identity_has_a_change_without_fields() -> None:
    columns = tuple(column._replace(is_identity=column.name == "id") for column in FULL.columns)
    statements = Statements(FULL._replace(columns=columns)).update(row("C1", id="9"), row("C1", id="10"))
    change = only(mapped(statements))
    assert (change.operation, change.fields, change.identity) == ("update", {}, "10")


def test_later_rows_of_a_transaction_see_the_identities_of_earlier_ones() -> None:
    result = mapped(Statements(BY_ID).insert(row("C1", id="9")).delete({"id": "9"}))
    assert (result.changes, result.parked, result.identities) == ((), (), {TABLE: {"9": None}})


def test_an_unknown_identity_is_parked_and_the_other_rows_go_on() -> None:
    statements = Statements(BY_ID).delete({"id": "9"}).update(None, row("<toast>", id="8")).insert(row("C1", id="7"))
    result = mapped(statements)
    assert operations_by_key(result) == {"C1": "insert"}
    assert [parked.table for parked in result.parked] == [TABLE, TABLE]
    assert all(parked.reason.startswith("unknown identity") for parked in result.parked)


def test_a_whole_old_row_needs_no_lookup() -> None:
    columns = FULL.columns
    by_id = FULL._replace(columns=tuple(column._replace(is_identity=column.name == "id") for column in columns))
    statements = Statements(by_id).delete(row("C1", id="9"))
    assert mapper().identities_to_look_up(statements.changes) == {}
    assert operations_by_key(mapped(statements)) == {"C1": "delete"}


def test_an_identity_that_contains_the_key_is_in_the_change_but_not_remembered() -> None:
    of = relation("id no")
    result = mapped(Statements(of).update({"id": "1", "no": "C1"}, row("C2")))
    assert operations_by_key(result) == {"C1": "delete to C2", "C2": "insert from C1"}
    assert [change.identity for change in result.changes] == ["1,C1", "1,C2"]
    assert result.identities == {}


def test_under_full_identity_the_key_names_the_row() -> None:
    assert only(mapped(Statements().insert(row("C1")))).identity is None


def test_two_rows_of_one_key_are_distinguished() -> None:
    result = mapped(Statements(BY_ID).insert(row("C1", id="1")).insert(row("C1", id="2")))
    assert [(change.key, change.operation, change.identity) for change in result.changes] == [
        ("C1", "insert", "1"),
        ("C1", "insert", "2"),
    ]


def test_a_row_replaced_by_one_of_another_identity_is_an_update_with_the_new_identity() -> None:
    result = mapped(Statements(BY_ID).delete({"id": "1"}).insert(row("C1", id="2")), known={"1": "C1"})
    assert operations_by_key(result) == {"C1": "update"}
    assert only(result).identity == "2"
    assert result.identities == {TABLE: {"1": None, "2": "C1"}}


def test_a_table_of_two_entities_remembers_identities_apart() -> None:
    order = table_map(entity="order", key=("phone",), fields={"points": "points"})
    result = mapped(Statements(BY_ID).insert(row("C1", "P1", id="9")), mapper(table_map(), order))
    assert {(change.entity, change.key) for change in result.changes} == {("customer", "C1"), ("order", "P1")}
    assert result.identities == {f"{TABLE}#customer": {"9": "C1"}, f"{TABLE}#order": {"9": "P1"}}
    assert {change.stamp for change in result.changes} == {Stamp(NOW, 0, "crm")}


# ---------------------------------------------------------------- what cannot be mapped


def test_a_row_that_cannot_be_read_is_parked_alone_and_without_its_values() -> None:
    result = mapped(Statements().insert(row("C1", points="secret")).insert(row("C2")))
    assert operations_by_key(result) == {"C2": "insert"}
    assert only(result).stamp.counter == 1
    (parked,) = result.parked
    assert (parked.source, parked.table) == ("crm", TABLE)
    assert "column points: 6 bytes" in parked.reason
    assert "secret" not in parked.reason


def test_a_record_that_was_touched_twice_is_parked_if_one_touch_cannot_be_read() -> None:
    statements = Statements().insert(row("C1")).update(row("C1"), row("C1", points="x")).insert(row("C2"))
    result = mapped(statements)
    assert operations_by_key(result) == {"C2": "insert"}
    assert len(result.parked) == 1


def test_an_unreadable_row_that_is_deleted_is_a_delete() -> None:
    result = mapped(Statements().update(row("C1"), row("C1", points="x")).delete(row("C1", points="x")))
    assert operations_by_key(result) == {"C1": "delete"}


def test_a_row_without_business_key_is_parked_until_it_has_one() -> None:
    result = mapped(Statements().insert(row(None)))
    assert (result.changes, result.parked[0].reason) == ((), "a column of the business key is NULL")
    assert operations_by_key(mapped(Statements().update(row(None), row("C1")))) == {"C1": "insert"}
    lost = mapped(Statements().update(row("C1"), row(None)))
    assert operations_by_key(lost) == {"C1": "delete"}
    assert len(lost.parked) == 1


def test_a_column_that_disappeared_is_absent_and_reported_once() -> None:
    of = relation(no=25, phone=25)
    by = mapper()
    result = mapped(Statements(of).insert({"no": "C1", "phone": "1"}), by)
    assert only(result).fields == {"phone": (UNKNOWN, "1")}
    assert result.parked == tuple(
        Parked("crm", TABLE, f"column {name} of entity customer is missing") for name in ("points", "bio")
    )
    again = Relation(*of)
    assert mapped(Statements(again).insert({"no": "C2", "phone": "1"}), by).parked == ()


def test_without_its_key_column_a_table_cannot_be_mapped() -> None:
    of = relation(phone=25, points=1700, bio=25)
    result = mapped(Statements(of).insert({"phone": "1"}))
    assert result.changes == ()
    assert [parked.reason for parked in result.parked] == ["column no of entity customer is missing"]


def test_a_missing_column_found_while_looking_up_identities_is_still_reported() -> None:
    of = relation("id", id=23, no=25, phone=25, bio=25)
    by, statements = mapper(), Statements(of).delete({"id": "9"})
    by.identities_to_look_up(statements.changes)
    assert mapped(statements, by, {"9": "C1"}).parked[0].reason == "column points of entity customer is missing"


def test_a_table_that_is_altered_within_the_transaction_keeps_its_rows() -> None:
    wider = FULL._replace(columns=(Column("new", 25, "", True), *FULL.columns))
    changes = [
        *Statements().update(row("C1", "1"), row("C1", "2")).changes,
        *Statements(wider).update(row("C1", "2"), row("C1", "3")).changes,
    ]
    result = mapper().map_transaction(transaction(changes), CLOCK, NOW, {})
    assert only(result).fields == {"phone": ("1", "3")}


# ---------------------------------------------------------------- truncates


def test_a_truncate_is_one_event_and_voids_earlier_changes_of_the_transaction() -> None:
    statements = Statements(BY_ID).insert(row("C1", id="1")).update(None, row("C3", id="3")).truncate()
    result = mapped(statements.insert(row("C2", id="2")), known={"3": "C2"})
    assert result.truncated == (Truncated("customer", TABLE, Stamp(NOW, 2, "crm"), Place("7", 1, 4711, TABLE, 2)),)
    assert operations_by_key(result) == {"C2": "insert"}
    assert result.identities == {TABLE: {"1": None, "3": None, "2": "C2"}}


# ---------------------------------------------------------------- snapshots


def test_snapshot_rows_are_as_of_the_consistent_point() -> None:
    began = SnapshotBegan("crm", "7", 1, 4000, NOW + 10**9, {})
    rows = tuple(
        RowChange("snapshot", FULL, None, False, cells(FULL, row(key, bio=None)), number)
        for number, key in enumerate(("C1", "C2"))
    )
    by = mapper(table_map(actor_column="updated_by", copy_actors=frozenset({"wang"})))
    result = by.map_snapshot(SnapshotRows("crm", rows), began, CLOCK)
    assert [change.operation for change in result.changes] == ["snapshot", "snapshot"]
    first, second = result.changes
    assert first.fields == {"phone": (UNKNOWN, "1"), "points": (UNKNOWN, Decimal(5)), "bio": (UNKNOWN, None)}
    assert first.place == Place("7", 1, 4000, TABLE, 0)
    assert (first.stamp, second.stamp) == (Stamp(NOW + 10**9, 0, "crm"), Stamp(NOW + 10**9, 1, "crm"))
    assert result.clock == second.stamp
    assert (first.actor, first.copy, first.committed_us) == ("wang", None, NOW + 10**9)


def test_an_unreadable_snapshot_row_is_parked_alone() -> None:
    began = SnapshotBegan("crm", "7", 1, 4000, NOW, {})
    rows = tuple(
        RowChange("snapshot", FULL, None, False, cells(FULL, row(key, points=points)), 0)
        for key, points in (("C1", "x"), (None, "1"), ("C2", "1"))
    )
    result = mapper().map_snapshot(SnapshotRows("crm", rows), began, CLOCK)
    assert operations_by_key(result) == {"C2": "snapshot"}
    assert len(result.parked) == 2


# ---------------------------------------------------------------- actors


def actor_of(
    statements: Statements, *messages: tuple[str, bytes], always: bool = False, copies: frozenset[str] = frozenset()
) -> tuple[str | None, Copy | None]:
    by = mapper(table_map(actor_column="updated_by", actor_always_written=always, copy_actors=copies))
    change = by.map_transaction(transaction(statements.changes, *messages), CLOCK, NOW, {}).changes[-1]
    return change.actor, change.copy


@pytest.mark.parametrize("content", [b"li", b'{"actor": "li"}'])
def test_a_message_names_the_actor_of_the_whole_transaction(content: bytes) -> None:
    for statements in (Statements().insert(row("C1")), Statements().delete(row("C1"))):
        assert actor_of(statements, ("cdc_merge.actor", content))[0] == "li"


def test_a_damaged_actor_message_gives_no_actor() -> None:
    for content in (b"\xff", b"", b'{"actor": 7}', b'{"other": "x"}'):
        statements = Statements().update(row("C1"), row("C1", "2"))
        assert actor_of(statements, ("cdc_merge.actor", content)) == (None, None)


def test_a_message_outside_of_the_transaction_does_not_attribute_it() -> None:
    tx = transaction(Statements().delete(row("C1")).changes)
    tx = tx._replace(messages=(Message("cdc_merge.actor", b"li", False), Message("cdc_merge.copy", b"", False)))
    change = only(mapper().map_transaction(tx, CLOCK, NOW, {}))
    assert (change.actor, change.copy) == (None, None)


def test_an_actor_column_counts_only_in_a_change_that_wrote_it() -> None:
    assert actor_of(Statements().insert(row("C1")))[0] == "wang"
    assert actor_of(Statements().update(row("C1"), row("C1", "2")))[0] is None
    assert actor_of(Statements().update(row("C1"), row("C1", "2", updated_by="li")))[0] == "li"
    assert actor_of(Statements(BY_KEY).update(None, row("C1", "2")))[0] is None
    assert actor_of(Statements().delete(row("C1")))[0] is None


def test_an_actor_column_that_is_always_written_counts_always_but_in_deletes() -> None:
    assert actor_of(Statements().update(row("C1"), row("C1", "2")), always=True)[0] == "wang"
    assert actor_of(Statements(BY_KEY).update(None, row("C1", "2")), always=True)[0] == "wang"
    assert actor_of(Statements().update(row("C1"), row("C1", "2", updated_by="<toast>")), always=True)[0] == "wang"
    assert actor_of(Statements().delete(row("C1")), always=True)[0] is None


def test_in_a_record_touched_twice_the_column_names_whom_the_transaction_wrote_there() -> None:
    twice = Statements().update(row("C1", "1"), row("C1", "2", updated_by="li"))
    assert actor_of(twice.update(row("C1", "2", updated_by="li"), row("C1", "3", updated_by="li")))[0] == "li"
    back = Statements().update(row("C1", "1"), row("C1", "2", updated_by="li"))
    assert actor_of(back.update(row("C1", "2", updated_by="li"), row("C1", "3")))[0] is None
    assert actor_of(Statements().update(row("C1"), row("C2", updated_by="li")))[0] == "li"
    ended = Statements().update(row("C1"), row("C1", updated_by="li")).delete(row("C1", updated_by="li"))
    assert actor_of(ended)[0] is None


# ---------------------------------------------------------------- copies


def copy_mark(*messages: tuple[str, bytes], origin: str | None = None) -> Copy | None:
    by = mapper(table_map(copy_origins=frozenset({"node_b"})))
    tx = transaction(Statements().insert(row("C1")).changes, *messages, origin=origin)
    return only(by.map_transaction(tx, CLOCK, NOW, {})).copy


def test_a_genuine_edit_has_no_copy_mark() -> None:
    assert copy_mark() is None
    assert copy_mark(origin="node_c") is None


def test_an_apply_message_names_the_writes_by_place() -> None:
    content = json.dumps({"writes": [["8", 1, 99, "erp.partner", 0], ["8", 1, 99, "erp.partner", 1]]}).encode()
    places = (Place("8", 1, 99, "erp.partner", 0), Place("8", 1, 99, "erp.partner", 1))
    assert copy_mark(("cdc_merge.apply", content)) == Copy(of=places)
    assert copy_mark(("cdc_merge.copy", b'{"from": "erp"}'), ("cdc_merge.apply", content)) == Copy("erp", places)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"{",
        b"[]",
        b"{}",
        b'{"writes": 7}',
        b'{"writes": [["8", "1", 99, "t", 0]]}',
        b'{"writes": [[]]}',
        b'{"writes": [7]}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_apply_message_still_marks_a_copy(content: bytes) -> None:
    assert copy_mark(("cdc_merge.apply", content)) == Copy()


@pytest.mark.parametrize(
    ("content", "source"), [(b"", None), (b'{"from": "erp"}', "erp"), (b'{"from": 7}', None), (b"\xff", None)]
)
def test_a_copy_message_may_name_its_source(content: bytes, source: str | None) -> None:
    assert copy_mark(("cdc_merge.copy", content)) == Copy(from_source=source)


def test_a_listed_origin_and_a_listed_actor_make_copies() -> None:
    assert copy_mark(origin="node_b") == Copy()
    etl = frozenset({"etl"})
    assert actor_of(Statements().insert(row("C1", updated_by="etl")), copies=etl) == ("etl", Copy())
    assert actor_of(Statements().delete(row("C1")), ("cdc_merge.actor", b"etl"), copies=etl) == ("etl", Copy())
    assert actor_of(Statements().insert(row("C1")), copies=etl) == ("wang", None)


def test_both_halves_of_a_copied_re_key_are_copies() -> None:
    by = mapper(table_map(actor_column="updated_by", copy_actors=frozenset({"etl"})))
    result = mapped(Statements().update(row("C1"), row("C2", updated_by="etl")), by)
    assert [change.copy for change in result.changes] == [Copy(), Copy()]
