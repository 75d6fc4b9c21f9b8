"""Replay: a record from its checkpoint and the changes later than it; the policy digest under which a checkpoint is valid."""

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

# Raise it when the fold itself gives another result: checkpoints of the earlier fold are not used any more.
FOLD_VERSION: Final = 3


def policy_of(plan: Plan) -> str:
    """The digest of all that a checkpoint depends on beside the history: how fields merge and which rules look at writes,
    not how conflicts are handled."""
    meaning: list[object] = [_meaning(entity) for _, entity in sorted(plan.entities.items())]
    meaning += [(rule.name, rule.on, rule.when) for rule in plan.rules if rule.when is not None]
    return f"{FOLD_VERSION}/{plan.max_ahead_us}/sha256:{sha256(repr(meaning).encode()).hexdigest()}"


def _meaning(entity: EntityPlan) -> tuple[object, ...]:
    mapped = [(source, sorted(fields)) for source, fields in sorted(entity.mapped.items())]
    units = sorted({**entity.fields, **entity.groups}.items())
    return entity.name, entity.sources, entity.deletes, mapped, [_merges(unit) for _, unit in units]


def _merges(unit: FieldPlan) -> tuple[object, ...]:
    """Where differences are timed, the time of the merged value depends on a rule's automatic answer."""
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
    """A merge type's own settings; of a map's keys not how their conflicts are handled."""
    handling = ("severity",) if timed else ("severity", "auto")
    settings = [
        (name, _settings(option, timed=timed) if isinstance(option, Mapping) else option)
        for name, option in sorted(options.items())
        if name not in handling
    ]
    # An entry that only says how a key's conflicts are handled counts as none.
    return [(name, setting) for name, setting in settings if setting != []]


def fold_from_checkpoint(
    units: Units,
    key: str,
    stored: tuple[Checkpoint | None, Iterable[Change]],
    *,
    max_ahead_us: int,
    compacts: bool = True,
) -> Record:
    """A record from its checkpoint, if it has one, and the changes later than it. Without `compacts` the unit states forget
    nothing of these changes, as `explain` needs it."""
    checkpoint, changes = stored
    if checkpoint is None:
        record = Record(units, key, max_ahead_us=max_ahead_us, compacts=compacts)
    else:
        record = load_state(units, checkpoint.tree, key=key, max_ahead_us=max_ahead_us)
        record.compacts = compacts
    for change in ordered(changes):
        advance(record, change)
    return record
