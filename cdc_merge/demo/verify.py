"""Compares what the sidecar says with the truth of what was done. Pure: documents in, deviations out.

Three comparisons: every merged record against the truth, every source's view against the rows that its tables really
hold, and the queue against the planned conflicts: all of them there, none besides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple

from cdc_merge.demo.systems import SEPARATOR, FactValue
from cdc_merge.demo.truth import CLOSED, OPEN, Planned, TrueRecord, World

Rows = Mapping[tuple[str, str, str], Mapping[str, object]]
"""(source, entity, key) → field → value: what the tables hold."""

BLANK: Final = (None, "")
MISSING: Final = "nothing"


class Deviation(NamedTuple):
    """One thing that is not as it should be. `about` is `mismatch`, `missed` or `unplanned`."""

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
    """Everything that deviates: merged values, views, conflicts."""
    said = {(record["entity"], record["key"]): record for record in records}
    checked = 0
    deviations: list[Deviation] = []
    for expected in (record for of_entity in world.records.values() for record in of_entity.values()):
        found = said.pop((expected.entity.name, expected.key), None)
        checked += 1
        deviations.extend(_record_deviations(expected, found, rows))
    deviations.extend(Deviation("mismatch", entity, key, None, "no such record", "a record") for entity, key in said)
    deviations.extend(conflict_deviations(world.expected_conflicts(), conflicts))
    return Verdict(checked, tuple(deviations))


# ---------------------------------------------------------------- records


def _record_deviations(expected: TrueRecord, found: Mapping[str, Any] | None, rows: Rows) -> Iterator[Deviation]:
    entity, key = expected.entity.name, expected.key
    if found is None:
        yield Deviation("mismatch", entity, key, None, "a record", "no such record")
        return
    if found["deleted"] != expected.deleted:
        yield Deviation("mismatch", entity, key, None, _ended(expected.deleted), _ended(found["deleted"]))
        return
    if not expected.deleted:
        for name in expected.entity.merges:
            wanted, got = expected.merged.get(name), found["merged"].get(name)
            if readable(expected, name, wanted) != readable(expected, name, got):
                yield Deviation("mismatch", entity, key, name, show(wanted), show(got))
    yield from _view_deviations(expected, found["sources"], rows)


def _ended(deleted: bool) -> str:  # noqa: FBT001 the argument is the whole question
    return "an ended record" if deleted else "a living record"


def _view_deviations(expected: TrueRecord, views: Mapping[str, Any], rows: Rows) -> Iterator[Deviation]:
    entity, key = expected.entity.name, expected.key
    for source, table in expected.entity.tables.items():
        row = rows.get((source, entity, key))
        view = views.get(source, {"presence": "unknown", "values": {}})
        if (view["presence"] == "present") != (row is not None):
            yield Deviation("mismatch", entity, key, f"at {source}", _held(row), f"a {view['presence']} row")
            continue
        for name in table.columns if row is not None else ():
            wanted, got = row[name] if row else None, view["values"].get(name)
            if readable(expected, name, wanted) != readable(expected, name, got):
                yield Deviation("mismatch", entity, key, f"{name} at {source}", show(wanted), show(got))


def _held(row: object) -> str:
    return "no row" if row is None else "a row"


def readable(record: TrueRecord, name: str, value: object) -> object:
    """A value in the one form in which truth, table and API can be compared."""
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
    """Missed and unplanned questions. One that vanished before it was announced disturbed nobody: it is not counted."""
    is_open: set[Planned] = set()
    is_closed: set[Planned] = set()
    bothered: set[Planned] = set()
    for conflict in conflicts:
        question = Planned(conflict["entity"], conflict["key"], conflict["field"], conflict["kind"])
        (is_closed if conflict["status"] == "closed" else is_open).add(question)
        if conflict["announced_at"] is not None or "overwrote" in conflict["labels"]:
            bothered.add(question)
    wanted = {state: {question for question, said in planned.items() if said == state} for state in (OPEN, CLOSED)}
    for question in sorted(wanted[OPEN] - is_open, key=str):
        got = "a closed one" if question in is_closed else "none"
        yield Deviation("missed", *question[:3], f"an open {question.kind}", got)
    for question in sorted(wanted[CLOSED] - is_closed - is_open, key=str):
        yield Deviation("missed", *question[:3], f"a closed {question.kind}", "none")
    for question in sorted(is_open - wanted[OPEN], key=str):
        expected = "it closed" if question in wanted[CLOSED] else "none"
        yield Deviation("unplanned", *question[:3], expected, f"an open {question.kind}")
    for question in sorted((is_closed & bothered) - is_open - planned.keys(), key=str):
        yield Deviation("unplanned", *question[:3], "none", f"a closed {question.kind}")
