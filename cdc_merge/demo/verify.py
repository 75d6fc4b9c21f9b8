"""Compares the sidecar's documents with the ground truth. Pure: documents in, deviations out.

Three comparisons: every merged record with the ground truth, every source's view with the rows of its tables, and the
conflict queue with the expected conflicts: all of them, and no others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple

from cdc_merge.demo.systems import SEPARATOR, FactValue
from cdc_merge.demo.truth import CLOSED, OPEN, Planned, TrueRecord, World

Rows = Mapping[tuple[str, str, str], Mapping[str, object]]
"""(source, entity, key) → field → value in the tables."""

BLANK: Final = (None, "")
MISSING: Final = "nothing"


class Deviation(NamedTuple):
    """One difference from the ground truth. `about` is `mismatch`, `missed` or `unplanned`."""

    about: str
    entity: str
    key: str
    field: str | None
    expected: str
    got: str

    def __str__(self) -> str:
        where = f"{self.entity} {self.key}" + (f" {self.field}" if self.field else "")
        return f"{where}: expected {self.expected}, got {self.got}"


class Verdict(NamedTuple):
    records_checked: int
    deviations: tuple[Deviation, ...]

    def count(self, about: str) -> int:
        return sum(1 for deviation in self.deviations if deviation.about == about)

    @property
    def summary(self) -> Mapping[str, int]:
        return {
            "records_checked": self.records_checked,
            "mismatches": self.count("mismatch"),
            "conflicts_missed": self.count("missed"),
            "conflicts_unplanned": self.count("unplanned"),
        }


def verdict(
    world: World, records: Iterable[Mapping[str, Any]], conflicts: Iterable[Mapping[str, Any]], rows: Rows
) -> Verdict:
    """All deviations: merged values, views, conflicts."""
    documents = {(record["entity"], record["key"]): record for record in records}
    checked = 0
    deviations: list[Deviation] = []
    for expected in (record for of_entity in world.records.values() for record in of_entity.values()):
        document = documents.pop((expected.entity.name, expected.key), None)
        checked += 1
        deviations.extend(_record_deviations(expected, document, rows))
    unexpected = [Deviation("mismatch", entity, key, None, "no such record", "a record") for entity, key in documents]
    deviations.extend(unexpected)
    deviations.extend(conflict_deviations(world.expected_conflicts(), conflicts))
    return Verdict(checked, tuple(deviations))


# ---------------------------------------------------------------- records


def _record_deviations(expected: TrueRecord, document: Mapping[str, Any] | None, rows: Rows) -> Iterator[Deviation]:
    entity, key = expected.entity.name, expected.key
    if document is None:
        yield Deviation("mismatch", entity, key, None, "a record", "no such record")
        return
    if document["deleted"] != expected.deleted:
        states = {True: "a deleted record", False: "an existing record"}
        yield Deviation("mismatch", entity, key, None, states[expected.deleted], states[document["deleted"]])
        return
    if not expected.deleted:
        for name in expected.entity.merges:
            wanted, got = expected.merged.get(name), document["merged"].get(name)
            if readable(expected, name, wanted) != readable(expected, name, got):
                yield Deviation("mismatch", entity, key, name, show(wanted), show(got))
    yield from _view_deviations(expected, document["sources"], rows)


def _view_deviations(expected: TrueRecord, views: Mapping[str, Any], rows: Rows) -> Iterator[Deviation]:
    entity, key = expected.entity.name, expected.key
    for source, table in expected.entity.tables.items():
        row = rows.get((source, entity, key))
        view = views.get(source, {"presence": "unknown", "values": {}})
        if (view["presence"] == "present") != (row is not None):
            presence = "no row" if row is None else "a row"
            yield Deviation("mismatch", entity, key, f"at {source}", presence, f"a {view['presence']} row")
            continue
        for name in table.columns if row is not None else ():
            wanted, got = row[name] if row else None, view["values"].get(name)
            if readable(expected, name, wanted) != readable(expected, name, got):
                yield Deviation("mismatch", entity, key, f"{name} at {source}", show(wanted), show(got))


def readable(record: TrueRecord, name: str, value: object) -> object:
    """A value in the common form of ground truth, table and API."""
    if record.entity.merges[name] == "set":
        return as_set(value)
    if value in BLANK:
        return None
    if name == "phone":
        return "".join(filter(str.isdigit, str(value)))
    return _number(value) if isinstance(value, int | Decimal) or name in NUMBERS else str(value)


NUMBERS: Final = frozenset({"points", "payment_days", "amount", "balance"})


def _number(value: object) -> object:
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return str(value)


def as_set(value: object) -> frozenset[str]:
    if isinstance(value, str):
        return frozenset(part for part in value.split(SEPARATOR) if part)
    return frozenset(map(str, value)) if isinstance(value, Iterable) else frozenset()


def show(value: FactValue | object) -> str:
    if value is None:
        return MISSING
    text = SEPARATOR.join(sorted(value)) if isinstance(value, frozenset) else str(value)
    return f"{text[:60]}… ({len(text)} characters)" if len(text) > LONGEST_SHOWN else text


LONGEST_SHOWN: Final = 80


# ---------------------------------------------------------------- conflicts


def conflict_deviations(planned: Mapping[Planned, str], conflicts: Iterable[Mapping[str, Any]]) -> Iterator[Deviation]:
    """Missed and unexpected conflicts. A conflict that closed before it was announced is not counted."""
    is_open: set[Planned] = set()
    is_closed: set[Planned] = set()
    announced: set[Planned] = set()
    for conflict in conflicts:
        question = Planned(conflict["entity"], conflict["key"], conflict["field"], conflict["kind"])
        (is_closed if conflict["status"] == "closed" else is_open).add(question)
        if conflict["announced_at"] is not None or "overwrote" in conflict["labels"]:
            announced.add(question)
    wanted = {state: {question for question, each in planned.items() if each == state} for state in (OPEN, CLOSED)}
    for question in sorted(wanted[OPEN] - is_open, key=str):
        got = "a closed one" if question in is_closed else "none"
        yield Deviation("missed", *question[:3], f"an open {question.kind}", got)
    for question in sorted(wanted[CLOSED] - is_closed - is_open, key=str):
        yield Deviation("missed", *question[:3], f"a closed {question.kind}", "none")
    for question in sorted(is_open - wanted[OPEN], key=str):
        expected = "a closed one" if question in wanted[CLOSED] else "none"
        yield Deviation("unplanned", *question[:3], expected, f"an open {question.kind}")
    for question in sorted((is_closed & announced) - is_open - planned.keys(), key=str):
        yield Deviation("unplanned", *question[:3], "none", f"a closed {question.kind}")
