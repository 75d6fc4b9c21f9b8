"""§3 map: "key by key, each key with its own merge type (default `mv` on its whole value), nested".

Every key that any change of the record mentions becomes a unit of its own, named `field.key`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from enum import Enum
from typing import Any

from cdc_merge.model import UNKNOWN, Change
from cdc_merge.model.plan import FieldPlan

Path = tuple[str, ...]


class Absent(Enum):
    """§2 rule 3: "A map key that is absent is held as absent by every source that holds the record"."""

    ABSENT = "absent"

    NO_MAP = "no map"


ABSENT = Absent.ABSENT
NO_MAP = Absent.NO_MAP
"""What a NULL map holds of a key at a first snapshot or insert: "a NULL map holds no key as absent" (§3)."""


def leaves(plan: FieldPlan, changes: Iterable[Change]) -> list[tuple[Path, FieldPlan]]:
    """The units of one map field: a path and a plan for every key that was ever mentioned."""
    documents = [value for change in changes for value in change.fields.get(plan.name, ())]
    return _leaves((plan.name,), plan, [opened(value) for value in documents])


def _leaves(path: Path, plan: FieldPlan, documents: list[Any]) -> list[tuple[Path, FieldPlan]]:
    objects = [document for document in documents if isinstance(document, Mapping)]
    found: list[tuple[Path, FieldPlan]] = []
    for key in sorted({key for document in objects for key in document}):
        told = dict(plan.options.get("keys", {}).get(key, {}))
        below = FieldPlan(f"{plan.name}.{key}", told.pop("merge", "mv"), told, severity=plan.severity)
        below = replace(below, agreement=told.get("agreement", plan.agreement))
        if below.merge == "map":
            found += _leaves((*path, key), below, [document.get(key) for document in objects])
        else:
            found.append(((*path, key), below))
    return found


def opened(value: Any) -> Any:
    """A JSON text as Python values; NULL and UNKNOWN as they are."""
    if value is None or value is UNKNOWN or not isinstance(value, str):
        return value
    return json.loads(value, parse_float=Decimal)


def leaf(value: Any, path: Path, *, null_is_empty: bool) -> Any:
    """What a map holds under a path. A NULL map "holds no key as absent" at a first snapshot."""
    document = opened(value)
    for key in path[1:]:
        if document is UNKNOWN:
            return UNKNOWN
        if document is None and not null_is_empty:
            return NO_MAP
        document = document.get(key, ABSENT) if isinstance(document, Mapping) else ABSENT
    return frozen(document)


def frozen(document: Any) -> Any:
    """Objects and arrays as canonical text, so that they compare and hash."""
    if isinstance(document, Mapping | list):
        return json.dumps(document, sort_keys=True, default=str)
    return document
