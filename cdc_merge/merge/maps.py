"""map: a JSON object merged key by key, each key with its own type (`keys:`, default mv on its whole value), nested.

A map is not a cell: every key that was ever held becomes a unit named by its path (`prefs.city`). A key that is absent is held as
absent by every source that holds the record, except where the source's whole map is NULL since its first snapshot or insert.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias

from cdc_merge.merge.cell import Cell
from cdc_merge.merge.merge_type import Event
from cdc_merge.merge.units import Unit
from cdc_merge.merge.writes import ABSENT
from cdc_merge.model import INSERT, SNAPSHOT, UNKNOWN, Change, Json, MaybeValue, Value
from cdc_merge.plan import FieldPlan

if TYPE_CHECKING:
    from cdc_merge.merge.record import Record


Held: TypeAlias = "Mapping[str, Value] | None"
"""What a source holds of a map: its keys, or None for a NULL map."""


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
    whole = change.row in (INSERT, SNAPSHOT)
    yield from _keys(record, plan, plan.name, (source, before, after, whole))


def _keys(
    record: Record, plan: FieldPlan, owner: str, moved: tuple[str, MaybeValue, MaybeValue, bool]
) -> Iterator[tuple[Unit, MaybeValue, MaybeValue]]:
    source, before, after, whole = moved
    held = record.map_keys.get((plan.name, source))
    known = (plan.name, source) in record.map_keys or before is not UNKNOWN
    old = held if before is UNKNOWN else parsed(before)
    new = None if after is ABSENT else parsed(after)
    record.map_keys[(plan.name, source)] = new if new is not None or whole else {}
    wanted = {*(old or ()), *(new or ())}
    born = record.rows[source].born if whole and source in record.rows else None
    if whole and (new is not None or (born is not None and not born.first)):
        wanted |= _known_keys(record, plan)
    for key in sorted(wanted):
        was = (old or {}).get(key, ABSENT) if known else UNKNOWN
        now = (new or {}).get(key, ABSENT)
        if was is not UNKNOWN and was == now and type(was) is type(now) and held is not None:
            continue
        child = key_plan(plan, key)
        if child.merge == "map":
            yield from _keys(record, child, owner, (source, was, now, whole))
        else:
            yield _unit(record, child, owner, source if whole else ""), was, now


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
        agreement=plan.agreement,
        severity=settings.pop("severity", plan.severity),
        auto=plan.auto,
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
    for source in record.present:
        if source != beginning and record.map_keys.get((parent, source)) is not None:
            _lack(record, unit, cell, source)
    return unit


def _lack(record: Record, unit: Unit, cell: Cell, source: str) -> None:
    """A source holds a new key as absent since its row began; a re-insert has cleared it, as it clears with NULL."""
    row = record.rows[source]
    if row.by is not None and row.born is not None and not row.born.first:
        event = Event(source, row.by, row.born, record.known.get(source, frozenset()))
        event.after, event.holders = ABSENT, (source,)
        unit.type.apply(cell, unit.plan, event)
        return
    side = cell.side(source)
    side.value = side.key = ABSENT
    side.by = row.by
    if row.by is not None and row.by.row == SNAPSHOT:
        side.first_key, side.untouched = ABSENT, True
    if row.born is not None:
        side.inserts = frozenset((row.born._replace(first=False),))


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
