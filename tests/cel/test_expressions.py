"""Expressions in CEL: exact numbers that mix, NULL and unknown, errors that say where."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from cdc_merge.cel import compile_expression
from cdc_merge.conflicts.expression_port import ExpressionError
from cdc_merge.model import UNKNOWN, Json

TYPES = {
    "used": "integer",
    "limit": "decimal",
    "rate": "float",
    "name": "text",
    "signed_on": "date",
    "active": "boolean",
    "prefs": "json",
    "tags": "array",
    "untyped": "",
    "名": "text",
}
HELD: Mapping[str, Any] = {
    "used": 3,
    "limit": Decimal("2.50"),
    "rate": 0.1,
    "name": "abc",
    "signed_on": "2026-01-31",
    "active": True,
    "prefs": Json('{"city":"x","visits":1.5,"list":[1,2]}'),
    "tags": ("p", "q"),
    "untyped": None,
    "名": "王",
}


def said(text: str, **other: Any) -> Any:
    return compile_expression(text, {"record": TYPES}).evaluate({"record": {**HELD, **other}})


@pytest.mark.parametrize(
    "text",
    [
        "record.used * record.limit == 7.5",
        "record.used + 0.5 > record.limit",
        "record.rate + 0.2 == 0.3",
        "abs(record.used - 5) == 2",
        "abs(record.limit - 5) == 2.5",
        "record.used / 2 == 1.5",
        "record.used % 2 == 1 && -record.used < 0",
        "record.signed_on < '2026-02-01'",
        "record.prefs.city == 'x' && record.prefs.visits < 2 && record.prefs.list[1] == 2",
        "record.tags.exists(tag, tag == 'q') && record.tags.all(tag, size(tag) == 1)",
        "record.tags.filter(tag, tag != 'p') == ['q'] && 'p' in record.tags",
        "record.tags.map(tag, tag + '!')[0] == 'p!'",
        "record.name.matches('^a.c$') && record.name.startsWith('a') && !record.name.contains('z')",
        "record.active ? record.used > 1 : false",
        "record['名'] == '王'",
        "string(record.limit) == '2.50' && int('3') == record.used && double('0.1') == record.rate",
    ],
)
def test_what_is_true_of_the_record_is_true(text: str) -> None:
    assert said(text) is True


def test_money_adds_up_exactly_where_doubles_would_not() -> None:
    sums = compile_expression("old.net + old.tax == old.total", {"old": {"net": "", "tax": "", "total": ""}})
    money = {"net": Decimal("100.10"), "tax": Decimal("19.02"), "total": Decimal("119.12")}
    assert 100.10 + 19.02 != 119.12
    assert sums.evaluate({"old": money}) is True
    beyond_doubles = {"net": 2**60, "tax": 1, "total": 2**60}
    assert sums.evaluate({"old": beyond_doubles}) is False


def test_nan_equals_itself_and_is_the_greatest_number() -> None:
    assert said("record.limit == record.limit && record.limit > 1e300", limit=Decimal("NaN")) is True
    assert said("record.rate >= record.limit", rate=float("nan")) is True


@pytest.mark.parametrize("value", [None, UNKNOWN])
@pytest.mark.parametrize(
    "text",
    [
        "record.used <= record.limit",
        "record.used == 3",
        "!(record.used == 3)",
        "abs(record.used) > 1",
        "record.used in [3]",
    ],
)
def test_an_operand_that_is_null_or_unknown_leaves_the_answer_unknown(text: str, value: Any) -> None:
    assert said(text, used=value) is UNKNOWN


def test_a_side_that_decides_alone_needs_no_other() -> None:
    assert said("record.active || record.untyped > 1") is True
    assert said("record.untyped > 1 || record.active") is True
    assert said("record.untyped > 1 && !record.active") is False
    assert said("record.untyped > 1 && record.active") is UNKNOWN
    assert said("record.active ? record.active : record.untyped") is True
    assert said("record.untyped ? true : true") is UNKNOWN


def test_whether_there_is_a_value_can_be_tested() -> None:
    assert said("has(record.name)") is True
    assert said("has(record.untyped)") is False
    assert said("has(record.name)", name=UNKNOWN) is False
    assert said("record.untyped == null && record.name != null") is True
    assert said("record.name == null", name=UNKNOWN) is UNKNOWN


def test_an_error_at_run_time_is_counted_and_leaves_the_answer_unknown() -> None:
    expression = compile_expression("record.used / record.untyped > 1", {"record": TYPES})
    assert expression.evaluate({"record": {**HELD, "untyped": 0}}) is UNKNOWN
    assert expression.errors == 1
    assert expression.evaluate({"record": {**HELD, "untyped": "many"}}) is UNKNOWN
    assert expression.errors == 2
    assert expression.evaluate({"record": HELD}) is UNKNOWN
    assert expression.errors == 2, "NULL is no error"
    assert expression.evaluate({"record": {**HELD, "untyped": 1}}) is True


@pytest.mark.parametrize(
    ("text", "line", "column", "sentence"),
    [
        ("record.used +", 1, 14, "this is not CEL"),
        ("record.used\n  + 'x' == 2", 2, 3, "+ does not take a number and text"),
        ("record.used == 'x'", 1, 13, "== does not take a number and text"),
        ("record.usd > 1", 1, 7, "record has no field 'usd'"),
        ("customer.used > 1", 1, 1, "there is no 'customer' here"),
        ("record == 1", 1, 1, "record is a whole record"),
        ("record.used && true", 1, 13, "&& needs a boolean, not a number"),
        ("shout(record.name) == 'A'", 1, 6, "there is no function 'shout'"),
        ("record.used + 1", 1, 13, "this gives a number, but a boolean is required"),
        ("size(record.used) > 1", 1, 5, "size does not take a number"),
        ("{'a': 1}.a == 1", 1, 1, "messages and mappings cannot be written in an expression"),
    ],
)
def test_what_is_wrong_is_said_with_line_and_column_at_load(text: str, line: int, column: int, sentence: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text, {"record": TYPES})
    assert str(caught.value).startswith(sentence)
    assert (caught.value.line, caught.value.column) == (line, column)


def test_a_text_that_is_nested_too_deeply_is_refused() -> None:
    with pytest.raises(ExpressionError):
        compile_expression("-(1 - " * 150 + "1" + ")" * 150 + " == 1", {})
    with pytest.raises(ExpressionError, match="at most"):
        compile_expression("true" + " " * 5_000, {})


def test_an_expression_knows_the_fields_that_it_mentions() -> None:
    expression = compile_expression("record.used <= record.limit || has(record.prefs.city)", {"record": TYPES})
    assert expression.fields == {"used", "limit", "prefs"}


def test_a_pattern_takes_linear_time() -> None:
    assert said("record.name.matches('^(a+)+$')", name="a" * 40 + "!") is False
