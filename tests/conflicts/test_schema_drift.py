"""A table that loses a column, and gets it back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count

from cdc_merge.conflicts.lifecycle import LifecycleContext
from cdc_merge.conflicts.schema_drift import AnnouncedColumns, schema_drift_transitions
from cdc_merge.mapping.relation import ColumnDrift, RelationColumns, relation_columns
from cdc_merge.model import Column, Conflict, Place, Relation, Stamp
from cdc_merge.model.plan import EntityPlan, FieldPlan, Plan, TableMap

ENTITY = EntityPlan(
    "customer",
    ("crm",),
    {"crm": frozenset({"phone", "points"})},
    {"phone": FieldPlan("phone", severity="high"), "points": FieldPlan("points", "counter", value_type="integer")},
)
MAPPED = TableMap("crm", "customer", "public.customer", ("no",), {"phone": "phone", "points": "points"})
PLAN = Plan({"customer": ENTITY}, (MAPPED,))
_ids = count(1)
CONTEXT = LifecycleContext(10, lambda: str(next(_ids)), "sha256:0")


def drifts(**columns: int) -> tuple[ColumnDrift, ...]:
    """Of a table with these columns (name → type)."""
    of = Relation(1, "public", "customer", "d", tuple(Column(name, oid) for name, oid in columns.items()))
    return relation_columns(MAPPED, of, PLAN).drifts


def announce(found: Sequence[ColumnDrift], unfinished: Iterable[Conflict] = ()) -> list[Conflict]:
    stamp, place = Stamp(5, 0, "crm"), Place("system", 1, 7, "public.customer", 0)
    seen = AnnouncedColumns("crm", RelationColumns("customer", "public.customer", tuple(found)), stamp, place)
    return list(schema_drift_transitions(ENTITY, seen, unfinished, CONTEXT))


def test_a_whole_table_has_not_drifted() -> None:
    assert drifts(no=25, phone=25, points=23) == ()


def test_a_missing_column_and_an_unreadable_type_have() -> None:
    assert drifts(no=25, points=25) == (ColumnDrift("phone", "phone"), ColumnDrift("points", "points"))


def test_a_missing_column_of_the_key_belongs_to_no_field() -> None:
    assert drifts(phone=25, points=23) == (ColumnDrift(None, "no"),)


def test_numbers_of_another_width_can_be_read() -> None:
    assert drifts(no=25, phone=25, points=1700) == ()


def test_one_conflict_a_column_is_raised_once_and_ends_when_the_column_is_back() -> None:
    (raised,) = announce([ColumnDrift("phone", "phone")])
    detected = raised.detected
    assert (detected.key, detected.field, detected.kind, detected.severity) == ("", "phone", "schema_drift", "high")
    assert detected.rule == "crm public.customer.phone"
    assert announce([ColumnDrift("phone", "phone")], [raised]) == []
    (closed,) = announce([], [raised])
    assert (closed.id, closed.status, closed.resolution) == (raised.id, "closed", "converged")


def test_another_tables_conflict_stays() -> None:
    (raised,) = announce([ColumnDrift("phone", "phone")])
    seen = AnnouncedColumns(
        "erp",
        RelationColumns("customer", "public.customer", ()),
        Stamp(6, 0, "erp"),
        raised.detected.candidates[0].place,
    )
    assert list(schema_drift_transitions(ENTITY, seen, [raised], CONTEXT)) == []
