"""A table that loses a column, and gets it back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count

from cdc_merge.decision.drift import Announced, drifted
from cdc_merge.decision.queue import Moment
from cdc_merge.mapping.columns import Drift, Shape, shape
from cdc_merge.model import Column, Conflict, Place, Relation, Stamp
from cdc_merge.plan import EntityPlan, FieldPlan, Plan, TableMap

ENTITY = EntityPlan(
    "customer",
    ("crm",),
    {"crm": frozenset({"phone", "points"})},
    {"phone": FieldPlan("phone", severity="high"), "points": FieldPlan("points", "counter", value_type="integer")},
)
MAPPED = TableMap("crm", "customer", "public.customer", ("no",), {"phone": "phone", "points": "points"})
PLAN = Plan({"customer": ENTITY}, (MAPPED,))
_ids = count(1)
MOMENT = Moment(10, lambda: str(next(_ids)), "sha256:0")


def drifts(**columns: int) -> tuple[Drift, ...]:
    """Of a table with these columns (name → type)."""
    of = Relation(1, "public", "customer", "d", tuple(Column(name, oid) for name, oid in columns.items()))
    return shape(MAPPED, of, PLAN).drifts


def announce(found: Sequence[Drift], known: Iterable[Conflict] = ()) -> list[Conflict]:
    stamp, place = Stamp(5, 0, "crm"), Place("system", 1, 7, "public.customer", 0)
    seen = Announced("crm", Shape("customer", "public.customer", tuple(found)), stamp, place)
    return list(drifted(ENTITY, seen, known, MOMENT))


def test_a_whole_table_has_not_drifted() -> None:
    assert drifts(no=25, phone=25, points=23) == ()


def test_a_missing_column_and_an_unreadable_type_have() -> None:
    assert drifts(no=25, points=25) == (Drift("phone", "phone"), Drift("points", "points"))


def test_a_missing_column_of_the_key_belongs_to_no_field() -> None:
    assert drifts(phone=25, points=23) == (Drift(None, "no"),)


def test_numbers_of_another_width_can_be_read() -> None:
    assert drifts(no=25, phone=25, points=1700) == ()


def test_one_conflict_a_column_is_raised_once_and_ends_when_the_column_is_back() -> None:
    (raised,) = announce([Drift("phone", "phone")])
    question = raised.question
    assert (question.key, question.field, question.kind, question.severity) == ("", "phone", "schema_drift", "high")
    assert question.rule == "crm public.customer.phone"
    assert announce([Drift("phone", "phone")], [raised]) == []
    (closed,) = announce([], [raised])
    assert (closed.id, closed.status, closed.resolution) == (raised.id, "closed", "converged")


def test_another_tables_conflict_stays() -> None:
    (raised,) = announce([Drift("phone", "phone")])
    seen = Announced(
        "erp", Shape("customer", "public.customer", ()), Stamp(6, 0, "erp"), raised.question.candidates[0].place
    )
    assert list(drifted(ENTITY, seen, [raised], MOMENT)) == []
