"""The response documents: the API sends and `--output json` prints the same ones, built here.

A missing object is NotFound, never an empty document.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from cdc_merge.errors import NotFound
from cdc_merge.model import Conflict, MergedRecord, RecordKey, Stamp, stamp_from_text
from cdc_merge.queries.documents import (
    EPOCH,
    Fields,
    conflict_json,
    explain_json,
    history_json,
    missing_json,
    page_json,
    record_json,
    restore_json,
    rule_json,
    time_json,
)
from cdc_merge.queries.port import QueryPort
from cdc_merge.queries.source_documents import source_json

# Conflicts listed in one record's document: more is a fault elsewhere, and conflicts have their own list.
MAX_OF_RECORD: Final = 1000


class AsOf(NamedTuple):
    """A point in the past: everything up to and including `stamp`. `text` is its form in the response."""

    stamp: Stamp
    text: str


def conflicts_document(queries: QueryPort, where: Mapping[str, str], cursor: str | None, limit: int) -> Fields:
    page = queries.conflicts(where, cursor, limit)
    return page_json([conflict_json(conflict) for conflict in page.items], page.next_cursor)


def records_document(queries: QueryPort, entity: str, cursor: str | None, limit: int) -> Fields:
    page = queries.records(entity, cursor, limit)
    return page_json([_with_conflicts(queries, record) for record in page.items], page.next_cursor)


def missing_document(queries: QueryPort, entity: str, source: str | None, cursor: str | None, limit: int) -> Fields:
    page = queries.missing(entity, source, cursor, limit)
    return page_json([missing_json(each) for each in page.items], page.next_cursor)


def restore_document(queries: QueryPort, key: RecordKey, to: AsOf | None, fields: Sequence[str]) -> Fields:
    """The plan of a restore; `to` None is the record's last conflict-free state."""
    plan = queries.restore(key, to.stamp if to else None, fields)
    if plan is None:
        raise no_such_record(key)
    return restore_json(plan, to.text if to else str(plan.to))


def rules_document(queries: QueryPort) -> Fields:
    return page_json([rule_json(rule) for rule in queries.rules()])


def conflict_document(queries: QueryPort, conflict_id: str) -> Fields:
    conflict = queries.conflict(conflict_id)
    if conflict is None:
        raise NotFound(f"There is no conflict {conflict_id}.", hint="List them: cdc-merge conflicts list.")
    return conflict_json(conflict)


def record_document(queries: QueryPort, key: RecordKey, as_of: AsOf | None) -> Fields:
    record = queries.record(key, as_of.stamp if as_of else None)
    if record is None:
        raise no_such_record(key, as_of)
    return _with_conflicts(queries, record, as_of)


def history_document(queries: QueryPort, key: RecordKey, cursor: str | None, limit: int) -> Fields:
    page = queries.history(key, cursor, limit)
    if not page.items and cursor is None:
        raise no_such_record(key)
    return history_json(page.items, page.next_cursor)


def explain_document(queries: QueryPort, key: RecordKey, field: str) -> Fields:
    explanation = queries.explain(key, field)
    if explanation is None:
        raise no_such_record(key)
    return explain_json(explanation)


def sources_document(queries: QueryPort, now_us: int) -> Fields:
    return page_json([source_json(source, now_us) for source in queries.sources()])


def no_such_record(key: RecordKey, as_of: AsOf | None = None) -> NotFound:
    """The key came from the caller, but it is a row value too: the sentence omits it."""
    when = f" as of {as_of.text}" if as_of else ""
    hint = "Write a composite key as its percent-encoded parts joined by commas; in a URL, encode it once more."
    return NotFound(f"There is no such record of {key.entity}{when}.", hint=hint)


def _with_conflicts(queries: QueryPort, record: MergedRecord, as_of: AsOf | None = None) -> Fields:
    where = {"entity": record.entity, "key": record.key}
    if as_of is None:
        return record_json(record, _in_order([*_all(queries, where, "settling"), *_all(queries, where, "open")]))
    conflicts = [*_all(queries, where, "settling"), *_all(queries, where, "open"), *_all(queries, where, "closed")]
    wall_us = as_of.stamp.wall_us
    return record_json(record, _in_order([each for each in conflicts if _unfinished_at(each, wall_us)]), as_of.text)


def _all(queries: QueryPort, where: dict[str, str], status: str) -> Iterator[Conflict]:
    yield from queries.conflicts({**where, "status": status}, None, MAX_OF_RECORD).items


def _unfinished_at(conflict: Conflict, at_us: int) -> bool:
    return conflict.raised_us <= at_us and (conflict.closed_us is None or conflict.closed_us > at_us)


def _in_order(conflicts: list[Conflict]) -> list[Conflict]:
    return sorted(conflicts, key=lambda conflict: (conflict.raised_us, conflict.id))


# ---------------------------------------------------------------- as of

# In a query string a bare plus is a space: `…T08:00:00+08:00` arrives as `…T08:00:00 08:00`.
_LOST_PLUS: Final = re.compile(r"(T[\d:.]+) (\d\d:?\d\d)$")
LAST_COUNTER: Final = 2**63 - 1
FIRST_US: Final = -62_135_596_800_000_000  # the first microsecond of the year 1
LAST_US: Final = 253_402_300_799_999_999  # the last of 9999


def as_of_from_text(text: str) -> AsOf | None:
    """A stamp or an ISO 8601 time (UTC unless it has a zone), of the years 1 to 9999; None for "". ValueError otherwise."""
    if not text:
        return None
    if "@" in text:
        stamp = stamp_from_text(text)
        if not (FIRST_US <= stamp.wall_us <= LAST_US and 0 <= stamp.counter <= LAST_COUNTER):
            raise ValueError("the stamp is out of range")
        return AsOf(stamp, str(stamp))
    return _at_time(datetime.fromisoformat(_LOST_PLUS.sub(r"\1+\2", text)))


def _at_time(moment: datetime) -> AsOf:
    """The end of that microsecond: it includes every change stamped in it."""
    instant = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    span = instant - EPOCH
    wall_us = (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds
    if not FIRST_US <= wall_us <= LAST_US:  # a zone moves the first and the last day of the calendar out of it
        raise ValueError("the time is out of range")
    return AsOf(Stamp(wall_us, LAST_COUNTER, ""), time_json(wall_us))
