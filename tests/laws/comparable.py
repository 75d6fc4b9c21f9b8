"""The common form in which the merge and the oracle are compared: without what the text of the semantics leaves open."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from cdc_merge.merge.conflict_detection import merge_conflicts
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.views import merged
from cdc_merge.model import UNKNOWN, DetectedConflict, Json
from cdc_merge.model.plan import EntityPlan
from cdc_merge.values.normalizers import normalizer
from tests.laws.oracle import Answer as OracleAnswer
from tests.laws.oracle.answers import OpenConflict
from tests.laws.oracle.maps import ABSENT, frozen

Answer = tuple[bool, Mapping[str, Any], Mapping[str, Any], frozenset[OpenConflict]]

LOOSE_CANDIDATES = frozenset({"bound", "divergence"})
"""Kinds for which the text does not say who the candidates are."""


def oracle_answer(entity: EntityPlan, answer: OracleAnswer) -> Answer:
    views = {source: (presence, values) for source, (presence, values) in answer.views.items() if presence != "unknown"}
    conflicts = frozenset(_comparable(_with_plain_updates(entity, conflict)) for conflict in answer.conflicts)
    return answer.deleted, {} if answer.deleted else _plain(entity, answer.merged), _present(entity, views), conflicts


def _with_plain_updates(entity: EntityPlan, conflict: OpenConflict) -> OpenConflict:
    """The changed fields of an update, in the form in which those of the merge are compared."""
    if conflict.kind != "update_delete":
        return conflict
    candidates = {(source, _plain_update(entity, value)) for source, value in conflict.candidates}
    return replace(conflict, candidates=frozenset(candidates))


def _plain_update(entity: EntityPlan, value: Any) -> Any:
    return frozenset(_plain(entity, dict(value)).items()) if isinstance(value, frozenset) else value


def merge_answer(entity: EntityPlan, record: Record) -> Answer:
    state = merged(record)
    views = {source: (view.presence, dict(view.values)) for source, view in state.sources.items()}
    conflicts = frozenset(_comparable(_of_merge(entity, conflict)) for conflict in merge_conflicts(record))
    return state.deleted, {} if state.deleted else _plain(entity, state.values), _present(entity, views), conflicts


def _present(entity: EntityPlan, views: Mapping[str, tuple[str, Mapping[str, Any]]]) -> Mapping[str, Any]:
    """Views of present sources; the text does not say whether the kept values of a deleted row are shown."""
    return {
        source: (presence, _plain(entity, values) if presence == "present" else {})
        for source, (presence, values) in views.items()
        if presence != "unknown"
    }


def _plain(entity: EntityPlan, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """A set has no order; the text does not say whether an empty one is NULL or empty, nor which of two spellings that
    normalise to one value is shown."""
    plain: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Json):
            plain.update(_keys(name, json.loads(value)))
        elif value is not ABSENT and (value is not None or not _is_map(entity, name)):
            plain[name] = _plain_value(entity, name, value)
    return plain


def _is_map(entity: EntityPlan, name: str) -> bool:
    plan = entity.fields.get(name.partition(".")[0])
    return plan is not None and plan.merge == "map"


def _keys(name: str, document: Any) -> Iterator[tuple[str, Any]]:
    """A map, key by key, as the oracle names them."""
    for key, value in document.items() if isinstance(document, Mapping) else ():
        yield f"{name}.{key}", frozen(value)


def _plain_value(entity: EntityPlan, name: str | None, value: Any) -> Any:
    plan = entity.fields.get(name or "")
    if plan is not None and plan.normalize and isinstance(value, str):
        return normalizer(plan.normalize)(value)
    return frozenset(value or ()) if plan is not None and plan.merge == "set" else value


def _comparable(conflict: OpenConflict) -> OpenConflict:
    loose = conflict.kind in LOOSE_CANDIDATES
    row_level = conflict.field is None and conflict.group is None
    return OpenConflict(
        conflict.field,
        conflict.group,
        conflict.kind,
        frozenset() if loose else conflict.candidates,
        conflict.base if conflict.kind.startswith("concurrent") else None,
        None if row_level or loose else conflict.provisional,
        conflict.labels,
    )


def _of_merge(entity: EntityPlan, conflict: DetectedConflict) -> OpenConflict:
    candidates = frozenset((c.source, _hashable(entity, conflict, c.value)) for c in conflict.candidates)
    provisional = _hashable(entity, conflict, conflict.provisional)
    base = _hashable(entity, conflict, conflict.base)
    name, group = conflict.field, conflict.group
    return OpenConflict(name, group, conflict.kind, candidates, base, provisional, frozenset(conflict.labels))


def _hashable(entity: EntityPlan, conflict: DetectedConflict, value: Any) -> Any:
    """A group's value as the tuple of its members; an update's changed fields as a set of pairs."""
    if isinstance(value, Mapping) and conflict.group is not None:
        parts = tuple(value.get(member, UNKNOWN) for member in entity.groups[conflict.group].members)
        return parts if value else UNKNOWN
    if isinstance(value, Json):
        return frozen(json.loads(value))
    return frozenset(_plain(entity, value).items()) if isinstance(value, Mapping) else value
