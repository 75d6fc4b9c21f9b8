"""The JSON documents that programs read (contract §7), built from model values. Pure.

Values: an integer beyond 2^53, every decimal, and the floats that JSON cannot express (NaN, Infinity) are strings in
exact, plain notation; bytes are base64; an array is a list; SQL NULL is null. An unknown value has no key.

A JSON value is shown as the document it is: its numbers stay numbers with every digit, also those that a double would
round, because a string in their place would be another document. Such a number is a `Decimal` here: write documents with
`json_text`, which writes all its digits; `json.dumps` refuses it.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import isfinite
from types import NoneType
from typing import Final, TypeAlias

from cdc_merge.model import (
    DECISION,
    DELETE,
    SNAPSHOT,
    TRUNCATE,
    Candidate,
    Change,
    Conflict,
    Explained,
    Explanation,
    Json,
    MaybeValue,
    MergedRecord,
    Missing,
    Place,
    RestorePlan,
    SourceView,
    Stamp,
    Unknown,
    Value,
    lsn_text,
)
from cdc_merge.model.plan import Rule

Document: TypeAlias = "None | bool | int | float | str | Decimal | list[Document] | dict[str, Document]"
Fields: TypeAlias = dict[str, Document]

EXACT_INTEGER: Final = 2**53
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# The members of a conflict that a record's document repeats.
SHORT_CONFLICT: Final = ("id", "field", "group", "kind", "severity", "status", "records")
# int() refuses text longer than 4,300 digits (sys.set_int_max_str_digits); numeric may have 131,072.
LONG_INTEGER: Final = 4_000


# ---------------------------------------------------------------- text


# Half of a surrogate pair, which the type json accepts and UTF-8 cannot encode, is written as an escape.
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def json_text(document: Document) -> str:
    """The document as JSON text, on one line; every number exact."""
    return _SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", _dumped(document))


def _dumped(document: Document) -> str:
    """The library is ten times as fast; only a document with a number that it would round is written here."""
    try:
        return json.dumps(document, ensure_ascii=False, allow_nan=False)
    except TypeError:
        return _exactly(document)


def _exactly(document: Document) -> str:
    match document:
        case dict():
            members = ", ".join(f"{_exactly(key)}: {_exactly(member)}" for key, member in document.items())
            return "{" + members + "}"
        case list():
            return "[" + ", ".join(map(_exactly, document)) + "]"
        case Decimal():
            return str(document)
        case _:
            return json.dumps(document, ensure_ascii=False, allow_nan=False)


# ---------------------------------------------------------------- values


def value_json(value: Value) -> Document:
    """One field's value (contract §7)."""
    return _JSON_OF[type(value)](value)


def _same(value: str | None) -> Document:
    return value


def _integer_json(value: int) -> Document:
    return value if abs(value) <= EXACT_INTEGER else str(Decimal(value))


def _float_json(value: float) -> Document:
    return value if isfinite(value) else format(Decimal(value), "f")


def _bytes_json(value: bytes) -> Document:
    return base64.b64encode(value).decode("ascii")


def _array_json(value: tuple[Value, ...]) -> Document:
    return [value_json(element) for element in value]


def _document_json(value: Json) -> Document:
    document: Document = json.loads(value, parse_int=_json_integer, parse_float=_json_number)
    return document


_JSON_OF: Final[Mapping[type, Callable[..., Document]]] = {
    NoneType: _same,
    bool: _same,
    str: _same,
    int: _integer_json,
    Decimal: "{:f}".format,
    float: _float_json,
    bytes: _bytes_json,
    tuple: _array_json,
    Json: _document_json,
}


def values_json(values: Mapping[str, MaybeValue]) -> Fields:
    """Fields by name; those whose value is unknown are left out."""
    return {name: value_json(value) for name, value in values.items() if not isinstance(value, Unknown)}


def _json_integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) < LONG_INTEGER else Decimal(digits)


def _json_number(digits: str) -> float | Decimal:
    exact, rounded = Decimal(digits), float(digits)
    return rounded if isfinite(rounded) and Decimal(repr(rounded)) == exact else exact


def time_json(us: int) -> str:
    """Microseconds since 1970 as ISO 8601 in UTC, always with six digits."""
    return (EPOCH + timedelta(microseconds=us)).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def maybe_time_json(us: int | None) -> str | None:
    return None if us is None else time_json(us)


def place_json(place: Place) -> Fields:
    return {
        "system": place.system,
        "timeline": place.timeline,
        "lsn": lsn_text(place.lsn),
        "table": place.table,
        "ordinal": place.ordinal,
    }


def source_name(stamp: Stamp) -> str:
    """The source of a stamp; a source read by partitions stamps as `source/partition`."""
    return stamp.source.partition("/")[0]


# ---------------------------------------------------------------- conflicts


def conflict_json(conflict: Conflict) -> Fields:
    """The one JSON of a conflict; document_schemas.ConflictDocument is its schema."""
    detected = conflict.detected
    document: Fields = {
        "id": conflict.id,
        "entity": detected.entity,
        "key": detected.key,
        "field": detected.field,
        "group": detected.group,
        "kind": detected.kind,
        "severity": detected.severity,
        "labels": [*dict.fromkeys((*detected.labels, *conflict.labels))],
        "status": conflict.status,
        "revision": conflict.revision,
        "resolution": conflict.resolution,
        "raised_at": time_json(conflict.raised_us),
        "announced_at": maybe_time_json(conflict.announced_us),
        "closed_at": maybe_time_json(conflict.closed_us),
        "rule": detected.rule,
        "policy": conflict.policy,
    }
    document |= _named_value("base", detected.base)
    # A conflict about a whole row has no provisional value of one field: null, not left out.
    about_a_field = detected.field is not None or detected.group is not None
    document |= _named_value("provisional", detected.provisional) if about_a_field else {"provisional": None}
    if detected.records:
        document["records"] = [*detected.records]
    document["suggestion"] = None
    document["candidates"] = [candidate_json(candidate) for candidate in detected.candidates]
    return document


def candidate_json(candidate: Candidate) -> Fields:
    document: Fields = {"source": candidate.source}
    document |= _named_value("value", candidate.value)
    document |= {
        "stamp": str(candidate.stamp),
        "committed_at": time_json(candidate.committed_us),
        "actor": candidate.actor,
        "place": place_json(candidate.place),
        "seen": [str(stamp) for stamp in candidate.seen],
    }
    if candidate.delta is not None:
        document["delta"] = value_json(candidate.delta)
    if candidate.key is not None:
        document["key"] = candidate.key
    return document


def _named_value(name: str, value: MaybeValue | Mapping[str, Value]) -> Fields:
    """A member: one field's value, or the fields of a group or row as an object; no member if unknown."""
    if isinstance(value, Unknown):
        return {}
    return {name: values_json(value) if isinstance(value, Mapping) else value_json(value)}


# ---------------------------------------------------------------- records


def record_json(record: MergedRecord, conflicts: Iterable[Conflict], as_of: str | None = None) -> Fields:
    """`conflicts`: those that are unfinished at that time; `as_of`: the requested stamp or time."""
    return {
        "entity": record.entity,
        "key": record.key,
        "as_of": as_of,
        "deleted": record.deleted,
        "merged": values_json(record.values),
        "sources": {name: view_json(view) for name, view in record.sources.items()},
        "missing": [*record.missing],
        "conflicts": [_short_conflict(conflict) for conflict in conflicts],
    }


def restore_json(plan: RestorePlan, to: str) -> Fields:
    """A planned restore; nothing is written. `to`: the requested stamp or time."""
    return {
        "entity": plan.entity,
        "key": plan.key,
        "to": to,
        "stamp": str(plan.to),
        "applied": False,
        "deleted": {"now": plan.deleted[0], "then": plan.deleted[1]},
        "fields": {name: values_json({"now": now, "then": then}) for name, (now, then) in plan.fields.items()},
        "writes": [
            {
                "source": write.source,
                "action": write.action,
                "fields": {n: values_json({"held": now, "wanted": then}) for n, (now, then) in write.fields.items()},
            }
            for write in plan.writes
        ],
        "later_edits": [change_json(edit.change) | {"undone": [*edit.undone]} for edit in plan.later],
    }


def missing_json(missing: Missing) -> Fields:
    return {
        "entity": missing.entity,
        "key": missing.key,
        "source": missing.source,
        "since": time_json(missing.since_us),
    }


def view_json(view: SourceView) -> Fields:
    return {
        "presence": view.presence,
        "values": values_json(view.values),
        "last_stamp": None if view.last_stamp is None else str(view.last_stamp),
    }


def _short_conflict(conflict: Conflict) -> Fields:
    document = conflict_json(conflict)
    return {name: document[name] for name in SHORT_CONFLICT if name in document}


_KINDS: Final = {SNAPSHOT: "snapshot", DECISION: "decision"}
_GENUINE_KINDS: Final = {DELETE: "delete", TRUNCATE: "delete"}


def kind_of(change: Change) -> str:
    """write, copy, snapshot, delete or decision. A copied delete is a copy: it repeats another source's delete."""
    if change.operation in _KINDS:
        return _KINDS[change.operation]
    if change.copy is not None:
        return "copy"
    return _GENUINE_KINDS.get(change.operation, "write")


def history_json(changes: Iterable[Change], next_cursor: str | None = None) -> Fields:
    return page_json([change_json(change) for change in changes], next_cursor)


def change_json(change: Change) -> Fields:
    document: Fields = {
        "stamp": str(change.stamp),
        "source": source_name(change.stamp),
        "kind": kind_of(change),
        "row": change.operation,
        "actor": change.actor,
        "committed_at": time_json(change.committed_us),
        "place": place_json(change.place),
        "fields": {
            name: values_json({"before": before, "after": after}) for name, (before, after) in change.fields.items()
        },
    }
    links = {"moved_to": change.moved_to, "moved_from": change.moved_from}
    return document | {name: key for name, key in links.items() if key is not None}


def explain_json(explanation: Explanation) -> Fields:
    document: Fields = {
        "entity": explanation.entity,
        "key": explanation.key,
        "field": explanation.field,
        "merge": explanation.merge,
        "rule": explanation.rule,
    }
    document |= values_json({"value": explanation.value})
    document["frontier"] = [str(stamp) for stamp in explanation.frontier]
    document["writes"] = [_explained_json(write) for write in explanation.writes]
    return document


def _explained_json(write: Explained) -> Fields:
    document: Fields = {"stamp": str(write.stamp), "source": write.source, "kind": write.kind}
    document |= values_json({"before": write.before, "after": write.after})
    return document | {
        "saw": [str(stamp) for stamp in write.saw],
        "saw_earlier": write.saw_earlier,
        "outcome": write.outcome,
        "because": write.because,
    }


# ---------------------------------------------------------------- rules and lists


def rule_json(rule: Rule) -> Fields:
    """A rule as in the configuration file; durations in seconds."""
    return {
        "name": rule.name,
        "on": rule.on,
        "when": rule.when,
        "severity": rule.severity,
        "tolerance_seconds": None if rule.tolerance_us is None else rule.tolerance_us / 1e6,
        "decide": {
            "auto": [step if isinstance(step, str) else [*step] for step in rule.auto],
            "approve": [[*level] for level in rule.approve],
        },
    }


def page_json(items: Sequence[Document], next_cursor: str | None = None) -> Fields:
    """A page of any list."""
    return {"items": [*items], "next_cursor": next_cursor}
