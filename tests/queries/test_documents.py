"""The JSON of contract §7: every key, every type, every digit."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_merge.model import (
    UNKNOWN,
    Candidate,
    Change,
    Conflict,
    Copy,
    DetectedConflict,
    Json,
    Position,
    SourceStatus,
    Stamp,
    Value,
)
from cdc_merge.queries.documents import (
    Document,
    change_json,
    conflict_json,
    explain_json,
    history_json,
    json_text,
    kind_of,
    record_json,
    time_json,
    value_json,
    values_json,
)
from cdc_merge.queries.source_documents import SourceReport, source_json
from tests.contracts.memory_reading import (
    T0,
    crm_source,
    customer,
    phone_changes,
    phone_conflict,
    phone_explanation,
    place,
    stamp,
)

# ---------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (0, "0"),
        (2**53, "9007199254740992"),
        (2**53 + 1, '"9007199254740993"'),
        (-(2**53) - 1, '"-9007199254740993"'),
        (Decimal("8"), '"8"'),
        (Decimal("1E+3"), '"1000"'),
        (Decimal("1E-10"), '"0.0000000001"'),
        (Decimal("12345678901234567890.123456789"), '"12345678901234567890.123456789"'),
        (0.5, "0.5"),
        (float("nan"), '"NaN"'),
        (float("-inf"), '"-Infinity"'),
        ("张伟", '"张伟"'),
        ("2026-05-01T08:00:00.000000Z", '"2026-05-01T08:00:00.000000Z"'),
        (b"\x00\xff", '"AP8="'),
        ((), "[]"),
        ((1, None, (Decimal("2.50"), 2**60)), '[1, null, ["2.50", "1152921504606846976"]]'),
        (Json("null"), "null"),
        (Json('{"a":[1,"x",true]}'), '{"a": [1, "x", true]}'),
    ],
)
def test_a_value_reads_as_the_contract_says(value: Value, text: str) -> None:
    assert json_text(value_json(value)) == text


@pytest.mark.parametrize(
    "digits",
    [
        "9007199254740993",
        "0.1",
        "12345678901234567890.123456789",
        "1E+400",
        "-0.00000000000000000000000000012345678901234",
    ],
)
def test_numbers_inside_json_stay_numbers_with_every_digit(digits: str) -> None:
    text = json_text(value_json(Json(f'{{"n":{digits}}}')))
    assert json.loads(text, parse_int=Decimal, parse_float=Decimal) == {"n": Decimal(digits)}


def test_an_integer_of_ten_thousand_digits_inside_json_is_written_out() -> None:
    digits = "7" * 10_000
    assert json_text(value_json(Json(f"[{digits}]"))) == f"[{digits}]"


def test_an_integer_of_ten_thousand_digits_is_a_string() -> None:
    assert value_json(10**10_000) == "1" + "0" * 10_000


def test_half_a_surrogate_pair_is_written_as_an_escape() -> None:
    json_text(value_json(Json('"\\ud83d"'))).encode()


numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
json_documents = st.recursive(
    st.none() | st.booleans() | numbers | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(json_documents)
def test_json_text_says_what_the_standard_library_says(document: Document) -> None:
    assert json.loads(json_text(document)) == json.loads(json.dumps(document))


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_a_decimal_string_has_no_exponent_and_loses_nothing(number: Decimal) -> None:
    text = value_json(number)
    assert isinstance(text, str)
    assert "E" not in text.upper()
    assert Decimal(text) == number


def test_the_unknown_is_left_out_and_null_is_not() -> None:
    assert values_json({"a": None, "b": UNKNOWN, "c": 1}) == {"a": None, "c": 1}


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1, "1970-01-01T00:00:00.000001Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (1_790_000_000_123_456, "2026-09-21T14:13:20.123456Z"),
        (253_402_300_799_999_999, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_a_time_is_exact_to_the_microsecond(us: int, text: str) -> None:
    assert time_json(us) == text


# ---------------------------------------------------------------- conflicts

CONFLICT_KEYS = {
    "id", "entity", "key", "field", "group", "kind", "severity", "labels", "status", "revision", "resolution",
    "raised_at", "announced_at", "closed_at", "rule", "policy", "base", "provisional", "suggestion", "candidates",
}  # fmt: skip
CANDIDATE_KEYS = {"source", "value", "stamp", "committed_at", "actor", "place", "seen"}


def phone_conflict_with(**changed: object) -> Conflict:
    conflict = phone_conflict()
    return replace(conflict, detected=replace(conflict.detected, **changed))  # type: ignore[arg-type] # fields of DetectedConflict


def only_candidate(candidate: Candidate) -> dict[str, Document]:
    candidates = conflict_json(phone_conflict_with(candidates=(candidate,)))["candidates"]
    assert isinstance(candidates, list)
    (document,) = candidates
    assert isinstance(document, dict)
    return document


def test_a_conflict_and_its_candidates_have_every_key() -> None:
    document = conflict_json(phone_conflict())
    assert document.keys() == CONFLICT_KEYS
    candidates = document["candidates"]
    assert isinstance(candidates, list)
    for candidate in candidates:
        assert isinstance(candidate, dict)
        assert candidate.keys() == CANDIDATE_KEYS


def test_a_base_that_is_unknown_is_left_out_and_a_null_one_is_not() -> None:
    assert "base" not in conflict_json(phone_conflict_with(base=UNKNOWN))
    assert conflict_json(phone_conflict_with(base=None))["base"] is None


@pytest.mark.parametrize("kind", ["update_delete", "key_change", "duplicate", "invariant"])
def test_a_question_about_a_whole_row_has_null_for_field_and_provisional(kind: str) -> None:
    document = conflict_json(phone_conflict_with(kind=kind, field=None, provisional=UNKNOWN))
    assert document["field"] is None
    assert document["provisional"] is None


def test_a_duplicate_lists_its_records_and_other_questions_have_no_such_list() -> None:
    document = conflict_json(phone_conflict_with(kind="duplicate", field=None, records=("C001", "C002")))
    assert document["records"] == ["C001", "C002"]
    assert "records" not in conflict_json(phone_conflict_with(kind="key_change", field=None))


def test_a_group_has_its_members_as_an_object_and_no_field() -> None:
    document = conflict_json(
        phone_conflict_with(
            field=None, group="address", base={"city": "Xi'an"}, provisional={"city": None, "zip": 2**60}
        )
    )
    assert (document["field"], document["group"]) == (None, "address")
    assert document["base"] == {"city": "Xi'an"}
    assert document["provisional"] == {"city": None, "zip": "1152921504606846976"}


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, {"value": None}), ({"phone": "2"}, {"value": {"phone": "2"}}), ("C9", {"value": "C9"}), (UNKNOWN, {})],
)
def test_a_candidate_shows_a_delete_an_update_a_move_and_an_absent_key(
    value: object, shown: dict[str, Document]
) -> None:
    candidate = Candidate("crm", value, stamp(0, "crm"), T0, None, place(1))  # type: ignore[arg-type] # each case is a value
    document = only_candidate(candidate)
    assert {name: document[name] for name in ("value",) if name in document} == shown


@pytest.mark.parametrize(("delta", "shown"), [(-1, -1), (Decimal("0.10"), "0.10")])
def test_a_counter_has_its_delta_beside_the_value_written(delta: int | Decimal, shown: object) -> None:
    candidate = Candidate("crm", 9, stamp(0, "crm"), T0, None, place(1), delta=delta)
    document = only_candidate(candidate)
    assert (document["value"], document["delta"]) == (9, shown)


def test_labels_of_question_and_queue_stand_together_once() -> None:
    conflict = replace(phone_conflict_with(labels=("baseline", "overwrote")), labels=("overwrote", "late"))
    assert conflict_json(conflict)["labels"] == ["baseline", "overwrote", "late"]


def test_a_closed_conflict_says_when_and_how() -> None:
    document = conflict_json(phone_conflict(status="closed"))
    assert (document["status"], document["resolution"]) == ("closed", "converged")
    assert document["closed_at"] == "2026-09-21T14:13:29.000000Z"


# ---------------------------------------------------------------- records, history, explanations


def test_a_record_has_every_key() -> None:
    document = record_json(customer(), [phone_conflict()])
    assert document.keys() == {"entity", "key", "as_of", "deleted", "merged", "sources", "missing", "conflicts"}
    assert document["conflicts"] == [
        {
            "id": "c1",
            "field": "phone",
            "group": None,
            "kind": "concurrent_update",
            "severity": "high",
            "status": "open",
        }
    ]


@pytest.mark.parametrize(
    ("row", "copy", "kind"),
    [
        ("insert", None, "write"),
        ("update", None, "write"),
        ("update", Copy(), "copy"),
        ("insert", Copy("crm"), "copy"),
        ("delete", None, "delete"),
        ("truncate", None, "delete"),
        ("delete", Copy(), "copy"),
        ("snapshot", None, "snapshot"),
        ("snapshot", Copy(), "snapshot"),
        ("decision", None, "decision"),
    ],
)
def test_each_change_has_its_kind(row: str, copy: Copy | None, kind: str) -> None:
    assert kind_of(Change("customer", "C001", stamp(0, "crm"), place(1), row, {}, copy=copy)) == kind


def test_a_history_item_has_every_key_and_leaves_the_unknown_out() -> None:
    document = history_json(phone_changes())
    assert document["next_cursor"] is None
    items = document["items"]
    assert isinstance(items, list)
    first, second = items
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert {"stamp", "source", "kind", "actor", "place", "fields"} <= first.keys()
    assert first["fields"] == {"phone": {"before": "1", "after": "2"}}
    assert second["fields"] == {"phone": {"after": "3"}}


def test_a_move_of_the_key_names_the_other_end() -> None:
    change = Change("customer", "C001", stamp(0, "crm"), place(1), "delete", {}, moved_to="C9")
    assert change_json(change)["moved_to"] == "C9"
    assert "moved_from" not in change_json(change)


def test_a_partition_of_a_source_is_named_by_the_stamp_alone() -> None:
    change = Change("customer", "C001", Stamp(T0, 3, "oa/2"), place(1), "update", {})
    assert change_json(change)["source"] == "oa"
    assert change_json(change)["stamp"] == f"{T0}.3@oa/2"


def test_an_explanation_has_every_key() -> None:
    document = explain_json(phone_explanation())
    assert document.keys() == {"entity", "key", "field", "merge", "rule", "value", "frontier", "writes"}
    writes = document["writes"]
    assert isinstance(writes, list)
    assert isinstance(writes[0], dict)
    assert writes[0].keys() == {
        "stamp",
        "source",
        "kind",
        "before",
        "after",
        "saw",
        "saw_earlier",
        "outcome",
        "because",
    }


def test_an_explained_value_that_is_unknown_is_left_out() -> None:
    assert "value" not in explain_json(replace(phone_explanation(), value=UNKNOWN))


# ---------------------------------------------------------------- sources


def test_a_source_has_every_key() -> None:
    document = source_json(crm_source(), T0)
    assert document.keys() >= {
        "name", "type", "up", "paused", "received_lsn", "durable_lsn", "lag_bytes", "lag_seconds", "last_commit_at",
        "watermark", "snapshot", "slot", "problem",
    }  # fmt: skip
    slot, snapshot = document["slot"], document["snapshot"]
    assert isinstance(slot, dict)
    assert isinstance(snapshot, dict)
    assert slot.keys() == {"name", "active", "wal_status", "retained_bytes", "safe_bytes"}
    assert snapshot.keys() == {"state", "rows", "expected"}


def test_a_source_that_has_sent_nothing_is_at_the_beginning_and_not_null() -> None:
    document = source_json(SourceReport(SourceStatus("crm", "postgres"), None, None), T0)
    assert (document["received_lsn"], document["durable_lsn"], document["snapshot"]) == (
        "0/0",
        "0/0",
        {"state": "none", "rows": 0, "expected": 0},
    )
    assert (document["lag_bytes"], document["lag_seconds"]) == (None, None)
    assert document["slot"] is None


def test_nothing_counts_as_durable_while_the_first_copy_runs() -> None:
    running = crm_source()._replace(
        position=Position("7", 1, 0x900, "running", "s"), snapshot_rows=5, snapshot_expected=9
    )
    document = source_json(running, T0)
    assert document["durable_lsn"] == "0/0"
    assert document["snapshot"] == {"state": "running", "rows": 5, "expected": 9}


def test_lag_is_zero_when_everything_that_the_server_has_is_durable() -> None:
    source = crm_source()
    level = source._replace(position=Position("7", 1, source.status.server_lsn, "done", "s"))
    document = source_json(level, T0 + 60_000_000)
    assert (document["lag_bytes"], document["lag_seconds"]) == (0, 0.0)


def test_lag_is_the_age_of_the_watermark_when_something_is_missing_or_the_source_is_away() -> None:
    source = crm_source()
    assert source_json(source, T0 + 60_000_000)["lag_seconds"] == 60.0
    away = source._replace(
        status=replace(source.status, up=False), position=Position("7", 1, source.status.server_lsn, "done", "s")
    )
    assert source_json(away, T0 + 60_000_000)["lag_seconds"] == 60.0


def test_a_rule_level_question_names_its_rule() -> None:
    detected = DetectedConflict("customer", "C001", None, None, "invariant", "critical", (), rule="limit")
    assert conflict_json(replace(phone_conflict(), detected=detected))["rule"] == "limit"
