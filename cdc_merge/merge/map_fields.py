"""map: a JSON object merged key by key, each key with its own type (`keys:`, default mv on its whole value), nested.

A map is not a cell: every key that was ever held becomes a unit named by its path (`prefs.city`). A key that is absent is held as
absent by every source that holds the record, except where the source's whole map is NULL since its first snapshot or insert.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from cdc_merge.merge.merge_type import Event
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.units import Unit
from cdc_merge.merge.writes import ABSENT, MISSING, Insert
from cdc_merge.model import INSERT, SNAPSHOT, UNKNOWN, Change, Json, MaybeValue, Value
from cdc_merge.model.plan import FieldPlan

if TYPE_CHECKING:
    from cdc_merge.merge.record_state import Record, Row


Held: TypeAlias = "Mapping[str, Value] | None"
"""What a source holds of a map: its keys, or None for a NULL map."""

CLEARED: Final[Mapping[str, Value]] = {}
"""Of a map that was made NULL: it holds every key as absent, as an empty one does, and is shown as NULL."""

EMPTY: Final = Json("{}")


def is_null(held: Held) -> bool:
    """Whether what a source holds is NULL, since its row began or later."""
    return held is None or held is CLEARED


def parsed(value: MaybeValue) -> Held:
    """The keys of a map's value; None for NULL and for JSON that is no object."""
    if not isinstance(value, str):
        return None
    loaded = json.loads(value, parse_float=Decimal)
    if not isinstance(loaded, dict):
        return None
    return {key: _leaf(item) for key, item in loaded.items()}


def _leaf(item: Any) -> Value:
    if isinstance(item, dict | list):
        return Json(text_of(item))
    return item  # type: ignore[no-any-return]  # json gives str, int, Decimal, bool or None here


def text_of(item: Any) -> str:
    if isinstance(item, dict):
        return "{" + ",".join(f"{json.dumps(k, ensure_ascii=False)}:{text_of(item[k])}" for k in sorted(item)) + "}"
    if isinstance(item, list):
        return "[" + ",".join(text_of(i) for i in item) + "]"
    if isinstance(item, Json):
        return item
    return str(item) if isinstance(item, Decimal) else json.dumps(item, ensure_ascii=False)


def events(
    record: Record, plan: FieldPlan, change: Change, source: str
) -> Iterator[tuple[Unit, MaybeValue, MaybeValue]]:
    """The keys that a change of a map touches, as events of their units."""
    before, after = change.fields[plan.name]
    if after is UNKNOWN:
        return
    told = _Told(source, change.operation in (INSERT, SNAPSHOT), change.copy is not None)
    yield from _keys(record, plan, plan.name, (told, before, after))


class _Told(NamedTuple):
    """Who says something of a map: `whole`: with a whole row, `copied`: in a copy, which lists what it leaves alone too."""

    source: str
    whole: bool
    copied: bool


def _keys(
    record: Record, plan: FieldPlan, owner: str, moved: tuple[_Told, MaybeValue, MaybeValue]
) -> Iterator[tuple[Unit, MaybeValue, MaybeValue]]:
    (source, whole, copied), before, after = moved
    # A row that was away for itself only says again what it has.
    again = whole and record.units.entity.deletes == "local"
    held = record.map_keys.get((plan.name, source))
    known = (plan.name, source) in record.map_keys or before is not UNKNOWN
    if after is None and not whole and known and (is_null(held) if before is UNKNOWN else before is None):
        return  # SET a = a
    old = held if before is UNKNOWN else parsed(before)
    new = None if after is ABSENT else parsed(after)
    opened = held is None and (plan.name, source) in record.map_keys and new is not None
    record.map_keys[(plan.name, source)] = new if new is not None or whole else CLEARED if after is None else {}
    wanted = {*(old or ()), *(new or ())}
    born = record.rows[source].inserted if whole and source in record.rows else None
    if (copied or whole or opened) and (new is not None or (born is not None and not born.first)):
        wanted |= _known_keys(record, plan)
    if copied and whole and new is None:
        _hold_nothing(record, plan, source)
    for key in sorted(wanted):
        was = (old or {}).get(key, ABSENT) if known else UNKNOWN
        now = (new or {}).get(key, ABSENT)
        if not (copied or again) and was is not UNKNOWN and was == now and type(was) is type(now) and held is not None:
            continue
        child = key_plan(plan, key)
        if child.merge == "map":
            yield from _keys(record, child, owner, (moved[0], was, now))
        else:
            unit = _unit(record, child, owner, source if whole else "")
            if opened and record.rows[source].by is not None:
                _began_null(record, unit, source)
            yield unit, was, now


def _hold_nothing(record: Record, plan: FieldPlan, source: str) -> None:
    """A copied row whose map is NULL holds no key, not even as absent."""
    for name, cell in record.cells.items():
        side = cell.sides.get(source) if name.startswith(plan.name + ".") else None
        if side is not None:
            side.value, side.key = UNKNOWN, MISSING


def _known_keys(record: Record, plan: FieldPlan) -> set[str]:
    """The keys of a map that some source has or had: a whole row holds those that it lacks as absent."""
    start = len(plan.name) + 1
    found = {name[start:] for name in record.cells if name.startswith(plan.name + ".")}
    nested = {k for k, settings in (plan.options.get("keys") or {}).items() if (settings or {}).get("merge") == "map"}
    return {next((k for k in nested if key.startswith(k + ".")), key) for key in found}


def key_plan(plan: FieldPlan, key: str) -> FieldPlan:
    """How one key merges: its entry under `keys:`, else mv on its whole value."""
    settings = dict((plan.options.get("keys") or {}).get(key) or {})
    return FieldPlan(
        name=f"{plan.name}.{key}",
        merge=settings.pop("merge", "mv"),
        normalize=tuple(settings.pop("normalize", ())),
        agreement=settings.pop("agreement", plan.agreement),
        severity=settings.pop("severity", plan.severity),
        auto=settings.pop("auto", plan.auto),
        options=settings,
    )


def plan_at(plan: FieldPlan, name: str) -> FieldPlan:
    """How the key named by its path (`prefs.city`) merges: through the maps nested on the way, as `events` found it."""
    path = name[len(plan.name) + 1 :]
    keys = plan.options.get("keys") or {}
    for key in keys:
        if path.startswith(key + ".") and (keys[key] or {}).get("merge") == "map":
            return plan_at(key_plan(plan, key), name)
    return key_plan(plan, path)


def _unit(record: Record, plan: FieldPlan, owner: str, beginning: str) -> Unit:
    """The unit of a key; a new one is absent for all who hold the map, except the source whose row is just beginning."""
    known = record.unit_of.get(plan.name)
    if known is not None:
        return known
    unit = record.units.unit(plan, owner, owner)
    parent = plan.name.rpartition(".")[0]
    cell = record.cell(unit)
    lacking = [s for s in record.present if s != beginning and record.map_keys.get((parent, s)) is not None]
    cleared = [s for s in lacking if _cleared(record.rows[s])]
    for source in lacking:
        _lack(record, cell, source)
    if cell.traits.agrees and plan.agreement != "off":
        _share_inserts(cell, lacking)
    without = [s for s in record.present if s != beginning and (parent, s) in record.map_keys and s not in lacking]
    for source in without:
        _began_null(record, unit, source)
    for source in cleared:
        _clear(record, unit, cell, (source, tuple(lacking)))
    if beginning and _was_read_without(record, parent, beginning):
        cell.side(beginning).first_key = ABSENT
    return unit


def _share_inserts(cell: UnitState, sources: list[str]) -> None:
    together = frozenset[Insert]().union(*[cell.sides[source].inserts for source in sources])
    for source in sources:
        cell.sides[source].inserts = together


def _began_null(record: Record, unit: Unit, source: str) -> None:
    """The first snapshot of a source whose map was NULL then: it differs from nothing."""
    row, side = record.rows[source], record.cell(unit).side(source)
    if row.by is not None and row.by.operation == SNAPSHOT and side.first_key is MISSING:
        side.first_key = None


def _was_read_without(record: Record, parent: str, source: str) -> bool:
    """The source's first snapshot had other keys of the map, and so not this one, which an insert brings."""
    by = record.rows[source].by
    if by is None or by.operation != INSERT:
        return False
    start = parent + "."
    siblings = [cell.sides.get(source) for name, cell in record.cells.items() if name.startswith(start)]
    return any(side is not None and side.first_key is not MISSING for side in siblings)


def _cleared(row: Row) -> bool:
    """The row was inserted again: what it does not have, it has cleared, as it clears with NULL."""
    return row.by is not None and row.inserted is not None and not row.inserted.first


def _lack(record: Record, cell: UnitState, source: str) -> None:
    """A source holds a new key as absent since its row began."""
    row, side = record.rows[source], cell.side(source)
    side.value = side.key = ABSENT
    side.by = row.by
    if row.by is not None and row.by.operation == SNAPSHOT:
        side.first_key, side.untouched = ABSENT, True
    if row.inserted is not None:
        side.inserts = frozenset((row.inserted._replace(first=False),))


def _clear(record: Record, unit: Unit, cell: UnitState, who: tuple[str, tuple[str, ...]]) -> None:
    """A re-insert wrote that the key is absent, and agrees with all who hold it so."""
    source, holders = who
    row = record.rows[source]
    assert row.by is not None
    event = Event(source, row.by, row.inserted, record.known.get(source, frozenset()))
    event.after, event.holders = ABSENT, holders
    unit.type.apply(cell, unit.plan, event)


def assembled(plan: FieldPlan, values: Mapping[str, Any]) -> Value:
    """The map's merged value from its keys' values by path; ABSENT keys are left out."""
    tree: dict[str, Any] = {}
    for path, value in values.items():
        if value is not ABSENT and value is not UNKNOWN:
            _plant(tree, plan, path[len(plan.name) + 1 :], value)
    return Json(text_of(tree))


def _plant(tree: dict[str, Any], plan: FieldPlan, path: str, value: Any) -> None:
    keys = plan.options.get("keys") or {}
    for key in keys:
        if path.startswith(key + ".") and (keys[key] or {}).get("merge") == "map":
            _plant(tree.setdefault(key, {}), key_plan(plan, key), path[len(key) + 1 :], value)
            return
    tree[path] = value
