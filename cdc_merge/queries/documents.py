"""The JSON documents that programs read (contract §7), made from the vocabulary. Pure.

What a value becomes: an integer beyond 2^53, every decimal, and the floats that JSON has no word for (NaN, Infinity)
are strings in exact, plain notation; bytes are base64; an array is a list; SQL NULL is null. The unknown has no key.

A JSON value is shown as the document it is: its numbers stay numbers with every digit, also those that a double cannot
hold, because a string in their place would be another document. Where a Python float would round such a number it is
kept as a `Decimal`: write documents with `json_text`, which writes it out; `json.dumps` refuses it.
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
from typing import Final, NamedTuple, TypeAlias

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
    Position,
    RestorePlan,
    SourceStatus,
    SourceView,
    Stamp,
    Unknown,
    Value,
    lsn_text,
)
from cdc_merge.model.plan import Rule
from cdc_merge.model.source_commands import NO_ORDERS, Resync, SourceOrders

Document: TypeAlias = "None | bool | int | float | str | Decimal | list[Document] | dict[str, Document]"
Fields: TypeAlias = dict[str, Document]

EXACT_INTEGER: Final = 2**53
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# int() refuses text longer than 4,300 digits (sys.set_int_max_str_digits); numeric may have 131,072.
LONG_INTEGER: Final = 4_000


class SourceReading(NamedTuple):
    """One source: what its reader knows now, and what is on disk. Times in microseconds since 1970, rows counted.

    `position` is None while nothing of the source is on disk, `watermark_us` None while it has passed nothing. `parked`:
    changes that wait because nobody has named their rows.
    """

    status: SourceStatus
    position: Position | None
    watermark_us: int | None
    orders: SourceOrders = NO_ORDERS
    snapshot_rows: int = 0
    snapshot_expected: int = 0
    parked: int = 0


# ---------------------------------------------------------------- text


# Half of a surrogate pair, which the type json takes and UTF-8 cannot hold, is written as an escape.
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def json_text(document: Document) -> str:
    """The document as JSON text, on one line; every number exact."""
    return _SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", _written(document))


def _written(document: Document) -> str:
    """The library writes what it knows, ten times as fast; a document with a number that it would round is written here."""
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
    """One field's value as contract §7 shows it."""
    return _SHOWN[type(value)](value)


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


def _json_json(value: Json) -> Document:
    document: Document = json.loads(value, parse_int=_json_integer, parse_float=_json_number)
    return document


_SHOWN: Final[Mapping[type, Callable[..., Document]]] = {
    NoneType: _same,
    bool: _same,
    str: _same,
    int: _integer_json,
    Decimal: "{:f}".format,
    float: _float_json,
    bytes: _bytes_json,
    tuple: _array_json,
    Json: _json_json,
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
    question = conflict.detected
    document: Fields = {
        "id": conflict.id,
        "entity": question.entity,
        "key": question.key,
        "field": question.field,
        "group": question.group,
        "kind": question.kind,
        "severity": question.severity,
        "labels": [*dict.fromkeys((*question.labels, *conflict.labels))],
        "status": conflict.status,
        "revision": conflict.revision,
        "resolution": conflict.resolution,
        "raised_at": time_json(conflict.raised_us),
        "announced_at": maybe_time_json(conflict.announced_us),
        "closed_at": maybe_time_json(conflict.closed_us),
        "rule": question.rule,
        "policy": conflict.policy,
    }
    document |= _answer_json("base", question.base)
    # A question about a whole row has no value of one field to offer: null, not left out.
    about_a_field = question.field is not None or question.group is not None
    document |= _answer_json("provisional", question.provisional) if about_a_field else {"provisional": None}
    if question.records:
        document["records"] = [*question.records]
    document["suggestion"] = None
    document["candidates"] = [candidate_json(candidate) for candidate in question.candidates]
    return document


def candidate_json(candidate: Candidate) -> Fields:
    document: Fields = {"source": candidate.source}
    document |= _answer_json("value", candidate.value)
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


def _answer_json(name: str, answer: MaybeValue | Mapping[str, Value]) -> Fields:
    """One field's value, or the fields of a group or a row as an object; nothing at all where it is unknown."""
    if isinstance(answer, Unknown):
        return {}
    return {name: values_json(answer) if isinstance(answer, Mapping) else value_json(answer)}


# ---------------------------------------------------------------- records


def record_json(record: MergedRecord, conflicts: Iterable[Conflict], as_of: str | None = None) -> Fields:
    """`conflicts` are those that stand at that time; `as_of` is the stamp or time that was asked for."""
    return {
        "entity": record.entity,
        "key": record.key,
        "as_of": as_of,
        "deleted": record.deleted,
        "merged": values_json(record.values),
        "sources": {name: view_json(view) for name, view in record.sources.items()},
        "missing": [*record.missing],
        "conflicts": [_conflict_line(conflict) for conflict in conflicts],
    }


def restore_json(plan: RestorePlan, to: str) -> Fields:
    """A restore as it is planned; nothing of it is written. `to` is the stamp or time that was asked for."""
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
                "fields": {n: values_json({"held": held, "wanted": then}) for n, (held, then) in write.fields.items()},
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


def _conflict_line(conflict: Conflict) -> Fields:
    question = conflict.detected
    line: Fields = {
        "id": conflict.id,
        "field": question.field,
        "group": question.group,
        "kind": question.kind,
        "severity": question.severity,
        "status": conflict.status,
    }
    return line | {"records": [*question.records]} if question.records else line


_KINDS: Final = {SNAPSHOT: "snapshot", DECISION: "decision"}
_GENUINE_KINDS: Final = {DELETE: "delete", TRUNCATE: "delete"}


def kind_of(change: Change) -> str:
    """write, copy, snapshot, delete or decision. A copied delete is a copy: it repeats somebody else's."""
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


# ---------------------------------------------------------------- sources and rules


def source_json(source: SourceReading, now_us: int) -> Fields:
    """`now_us` is our clock: `lag_seconds` is how long ago the watermark was passed, 0.0 when nothing is missing."""
    status, position = source.status, source.position
    durable_lsn = durable_lsn_of(position)
    # Before the server has said how far it is, nobody knows what is missing.
    lag_bytes = max(0, status.server_lsn - durable_lsn) if status.server_lsn else None
    return {
        "name": status.name,
        "type": status.type,
        "up": status.up,
        "state": status.state,
        "paused": source.orders.paused,
        "received_lsn": lsn_text(status.received_lsn),
        "durable_lsn": lsn_text(durable_lsn),
        "lag_bytes": lag_bytes,
        "lag_seconds": _lag_seconds(status.up and lag_bytes == 0, source.watermark_us, now_us),
        "last_commit_at": maybe_time_json(status.last_commit_us),
        "watermark": maybe_time_json(source.watermark_us),
        "snapshot": {
            "state": _snapshot_state(position),
            "rows": source.snapshot_rows,
            "expected": source.snapshot_expected,
        },
        "resyncs": [_resync_json(resync) for resync in source.orders.resyncs],
        "slot": None if status.slot is None else _slot_json(status),
        "parked": source.parked,
        "reconnects": status.reconnects,
        "problem": status.problem,
    }


def orders_json(source: str, orders: SourceOrders) -> Fields:
    """What a source was told; `resyncs` in the order in which they are worked off."""
    return {"source": source, "paused": orders.paused, "resyncs": [_resync_json(resync) for resync in orders.resyncs]}


def _resync_json(resync: Resync) -> Fields:
    return {
        "table": resync.table,
        "record": bool(resync.keys),
        "state": resync.phase,
        "cause": resync.cause,
        "asked_at": time_json(resync.asked_us),
        "rows": resync.rows,
        "expected": resync.expected,
        "gone": resync.gone,
        "problem": resync.problem or None,
    }


def _snapshot_state(position: Position | None) -> str:
    if position is None:
        return "none"
    return "running" if position.is_copying else position.snapshot


def durable_lsn_of(position: Position | None) -> int:
    """Up to where the picture is complete: 0 until a first copy that was begun is finished."""
    return 0 if position is None or position.is_copying else position.lsn


def _lag_seconds(is_level: bool, watermark_us: int | None, now_us: int) -> float | None:  # noqa: FBT001 one caller, one word
    if is_level:
        return 0.0
    return None if watermark_us is None else max(0, now_us - watermark_us) / 1e6


def _slot_json(status: SourceStatus) -> Fields:
    return {
        "name": status.slot,
        "active": status.slot_active,
        "wal_status": status.wal_status,
        "retained_bytes": status.retained_bytes,
        "safe_bytes": status.safe_bytes,
    }


def rule_json(rule: Rule) -> Fields:
    """A rule as the file states it; durations in seconds."""
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
    """A list as all lists are."""
    return {"items": [*items], "next_cursor": next_cursor}
