"""map: a JSON object merged key by key, each key with its own type (`keys:`, default mv on its whole value), nested.

Data structure: a map of CRDTs. A map has no state of its own: every key that was ever present is a unit named by its path
(`prefs.city`). An absent key is the value ABSENT at every source that holds the record, except where the source's whole
map has been NULL since its first snapshot or insert.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from itertools import chain
from typing import Any, Final, NamedTuple

from cdc_merge.merge.merge_type import Event
from cdc_merge.merge.record_state import MapKeys, Record, Row
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.units import Unit
from cdc_merge.merge.writes import ABSENT, MISSING, Insert
from cdc_merge.model import INSERT, SNAPSHOT, UNKNOWN, Change, Json, MaybeValue, Value
from cdc_merge.model.plan import FieldPlan

CLEARED: Final[Mapping[str, Value]] = {}
"""Of a map that an update set to NULL: its keys are absent, as in an empty map, and it is shown as NULL."""

EMPTY: Final = Json("{}")


def is_null(keys: MapKeys) -> bool:
    """Whether a source's map is NULL, since its row began or later."""
    return keys is None or keys is CLEARED


def parsed(value: MaybeValue) -> MapKeys:
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
    origin = _Origin(source, change.operation in (INSERT, SNAPSHOT), change.copy is not None)
    yield from _key_events(record, plan, plan.name, (origin, before, after))


class _Origin(NamedTuple):
    """Where a map's change comes from. `whole`: a whole row; `copied`: a copy, which also lists the keys that it repeats."""

    source: str
    whole: bool
    copied: bool


def _key_events(
    record: Record, plan: FieldPlan, owner: str, changed: tuple[_Origin, MaybeValue, MaybeValue]
) -> Iterator[tuple[Unit, MaybeValue, MaybeValue]]:
    (source, whole, copied), before, after = changed
    repeats = whole and record.units.entity.deletes == "local"  # a row that returns also lists the keys that it repeats
    present = record.map_keys.get((plan.name, source))
    has_old = (plan.name, source) in record.map_keys or before is not UNKNOWN
    if after is None and not whole and has_old and (is_null(present) if before is UNKNOWN else before is None):
        return  # SET a = a
    old = present if before is UNKNOWN else parsed(before)
    new = None if after is ABSENT else parsed(after)
    opened = present is None and (plan.name, source) in record.map_keys and new is not None
    record.map_keys[(plan.name, source)] = new if new is not None or whole else CLEARED if after is None else {}
    keys = {*(old or ()), *(new or ())}
    insert = record.rows[source].inserted if whole and source in record.rows else None
    if (copied or whole or opened) and (new is not None or (insert is not None and not insert.first)):
        keys |= _all_keys(record, plan)
    if copied and whole and new is None:
        _clear_keys(record, plan, source)
    for key in sorted(keys):
        was = (old or {}).get(key, ABSENT) if has_old else UNKNOWN
        now = (new or {}).get(key, ABSENT)
        same = was is not UNKNOWN and was == now and type(was) is type(now)
        if same and not (copied or repeats) and present is not None:
            continue
        child = key_plan(plan, key)
        if child.merge == "map":
            yield from _key_events(record, child, owner, (changed[0], was, now))
        else:
            unit = _unit(record, child, owner, source if whole else "")
            if opened:
                _note_null_map(record, unit, source)
            yield unit, was, now


def _clear_keys(record: Record, plan: FieldPlan, source: str) -> None:
    """A copied row whose map is NULL holds no key, not even as absent."""
    for name, state in record.unit_states.items():
        at_source = state.by_source.get(source) if name.startswith(plan.name + ".") else None
        if at_source is not None:
            at_source.value, at_source.key = UNKNOWN, MISSING


def _all_keys(record: Record, plan: FieldPlan) -> set[str]:
    """The keys of a map that any source has or had: in a whole row the missing ones are absent."""
    start = len(plan.name) + 1
    keys = {name[start:] for name in record.unit_states if name.startswith(plan.name + ".")}
    nested = {k for k, settings in (plan.options.get("keys") or {}).items() if (settings or {}).get("merge") == "map"}
    return {next((k for k in nested if key.startswith(k + ".")), key) for key in keys}


def key_plan(plan: FieldPlan, key: str) -> FieldPlan:
    """The plan of one key: its entry under `keys:`, else mv on its whole value."""
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
    """The plan of the key at a path (`prefs.city`), through the maps nested on the way, as `events` finds it."""
    path = name[len(plan.name) + 1 :]
    keys = plan.options.get("keys") or {}
    for key in keys:
        if path.startswith(key + ".") and (keys[key] or {}).get("merge") == "map":
            return plan_at(key_plan(plan, key), name)
    return key_plan(plan, path)


def _unit(record: Record, plan: FieldPlan, owner: str, beginning: str) -> Unit:
    """The unit of a key. A new one is absent at every source that holds the map, except the one whose row begins."""
    existing = record.unit_of.get(plan.name)
    if existing is not None:
        return existing
    unit = record.units.unit(plan, owner, owner)
    parent = plan.name.rpartition(".")[0]
    state = record.unit_state(unit)
    without = [s for s in record.present if s != beginning and record.map_keys.get((parent, s)) is not None]
    cleared = [s for s in without if _was_reinserted(record.rows[s])]
    for source in without:
        _set_absent(record, state, source)
    if state.traits.agrees and plan.agreement != "off":
        _join_inserts(state, without)
    with_null = [s for s in record.present if s != beginning and (parent, s) in record.map_keys and s not in without]
    for source in with_null:
        _note_null_map(record, unit, source)
    for source in cleared:
        _write_absent(record, unit, state, (source, tuple(without)))
    if beginning and _was_read_without_key(record, parent, beginning):
        state.at(beginning).snapshot_key = ABSENT
    return unit


def _join_inserts(state: UnitState, sources: list[str]) -> None:
    inserts = frozenset[Insert]().union(*[state.by_source[source].inserts for source in sources])
    for source in sources:
        state.by_source[source].inserts = inserts


def _note_null_map(record: Record, unit: Unit, source: str) -> None:
    """The first snapshot of a source whose map was NULL then: it differs from nothing."""
    row, at_source = record.rows[source], record.unit_state(unit).at(source)
    was_read = row.entered_by is not None and row.entered_by.operation == SNAPSHOT
    if was_read and at_source.snapshot_key is MISSING:
        at_source.snapshot_key = None


def _was_read_without_key(record: Record, parent: str, source: str) -> bool:
    """The source's first snapshot had other keys of the map, and so not this one, which an insert brings."""
    entered_by = record.rows[source].entered_by
    if entered_by is None or entered_by.operation != INSERT:
        return False
    start = parent + "."
    siblings = [state.by_source.get(source) for name, state in record.unit_states.items() if name.startswith(start)]
    return any(at_source is not None and at_source.snapshot_key is not MISSING for at_source in siblings)


def _was_reinserted(row: Row) -> bool:
    """A row that was inserted again wrote the absence of its missing keys, as it would write NULL."""
    return row.entered_by is not None and row.inserted is not None and not row.inserted.first


def _set_absent(record: Record, state: UnitState, source: str) -> None:
    """A new key has been absent at a source since its row began."""
    row, at_source = record.rows[source], state.at(source)
    at_source.value = at_source.key = ABSENT
    at_source.set_by = row.entered_by
    if row.entered_by is not None and row.entered_by.operation == SNAPSHOT:
        at_source.snapshot_key, at_source.untouched = ABSENT, True
    if row.inserted is not None:
        at_source.inserts = frozenset((row.inserted._replace(first=False),))


def _write_absent(record: Record, unit: Unit, state: UnitState, parties: tuple[str, tuple[str, ...]]) -> None:
    """A re-insert wrote that the key is absent, and agrees with all sources where it is."""
    source, holders = parties
    row = record.rows[source]
    assert row.entered_by is not None
    event = Event(source, row.entered_by, row.inserted, record.seen_deletes.get(source, frozenset()))
    event.after, event.holders = ABSENT, holders
    unit.type.apply(state, unit.plan, event)


def assembled(plan: FieldPlan, values: Mapping[str, Any]) -> Value:
    """The map's merged value from its keys' values by path; ABSENT keys are left out."""
    tree: dict[str, Any] = {}
    for path, value in values.items():
        if value is not ABSENT and value is not UNKNOWN:
            _set_path(tree, plan, path[len(plan.name) + 1 :], value)
    return Json(text_of(tree))


def _set_path(tree: dict[str, Any], plan: FieldPlan, path: str, value: Any) -> None:
    keys = plan.options.get("keys") or {}
    for key in keys:
        if path.startswith(key + ".") and (keys[key] or {}).get("merge") == "map":
            _set_path(tree.setdefault(key, {}), key_plan(plan, key), path[len(key) + 1 :], value)
            return
    tree[path] = value


def dump_keys(keys: MapKeys) -> Any:
    """As plain values, for a checkpoint."""
    if keys is None:
        return None
    return False if keys is CLEARED else [*chain(*keys.items())]


def load_keys(tree: Any) -> MapKeys:
    if tree is None:
        return None
    if tree is False:
        return CLEARED
    each = iter(tree)
    return dict(zip(each, each, strict=True))
