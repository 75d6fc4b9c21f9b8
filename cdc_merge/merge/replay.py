"""The fold goes on from a base: a record is what its base holds and the changes that are later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Final

from cdc_merge.history.order import ordered
from cdc_merge.merge.checkpoint import load_state
from cdc_merge.merge.fold import advance
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.units import Units
from cdc_merge.model import Change, Checkpoint
from cdc_merge.model.plan import EntityPlan, FieldPlan, Plan

# Raise it when the fold itself answers differently than before: bases that it made then are not used any more.
FOLD: Final = 3


def policy_of(plan: Plan) -> str:
    """All that a base depends on beside the history: how fields merge and what catches their writes, not how conflicts
    are judged."""
    meaning: list[object] = [_meaning(entity) for _, entity in sorted(plan.entities.items())]
    meaning += [(rule.name, rule.on, rule.when) for rule in plan.rules if rule.when is not None]
    return f"{FOLD}/{plan.max_ahead_us}/sha256:{sha256(repr(meaning).encode()).hexdigest()}"


def _meaning(entity: EntityPlan) -> tuple[object, ...]:
    mapped = [(source, sorted(fields)) for source, fields in sorted(entity.mapped.items())]
    units = sorted({**entity.fields, **entity.groups}.items())
    return entity.name, entity.sources, entity.deletes, mapped, [_merges(unit) for _, unit in units]


def _merges(unit: FieldPlan) -> tuple[object, ...]:
    """Where differences are timed, since when a value stands depends on what a rule answers by itself."""
    timed = unit.tolerance_us is not None
    options = _settings(unit.options, timed=timed)
    return (
        unit.name,
        unit.merge,
        options,
        unit.normalize,
        unit.agreement,
        unit.members,
        timed,
        unit.auto if timed else (),
    )


def _settings(options: Mapping[str, object], *, timed: bool) -> list[tuple[str, object]]:
    """A merge type's own settings; of a map's keys not how their conflicts are judged."""
    judging = ("severity",) if timed else ("severity", "auto")
    told = [
        (name, _settings(option, timed=timed) if isinstance(option, Mapping) else option)
        for name, option in sorted(options.items())
        if name not in judging
    ]
    # An entry that only says how a key is judged is as none.
    return [(name, setting) for name, setting in told if setting != []]


def folded(
    units: Units,
    key: str,
    known: tuple[Checkpoint | None, Iterable[Change]],
    *,
    max_ahead_us: int,
    compacts: bool = True,
) -> Record:
    """A record from its base, if it has one, and the changes later than it. Without `compacts` the cells forget nothing
    of these changes, as `explain` needs it."""
    base, changes = known
    if base is None:
        record = Record(units, key, max_ahead_us=max_ahead_us, compacts=compacts)
    else:
        record = load_state(units, base.tree, key=key, max_ahead_us=max_ahead_us)
        record.compacts = compacts
    for change in ordered(changes):
        advance(record, change)
    return record
