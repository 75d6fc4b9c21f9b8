"""YAML text → values and lines: references, exact numbers, duplicates, broken files."""

from __future__ import annotations

from decimal import Decimal

import pytest

from cdc_merge.config.yaml_source import DEEPEST, Document


def read(text: str, **environment: str) -> Document:
    document = Document(environment)
    document.read(text)
    return document


def sentences(document: Document) -> list[str]:
    return [problem.sentence for problem in document.problems]


def test_a_reference_may_stand_unquoted_inside_braces() -> None:
    document = read("erp: { type: postgres, dsn: ${ERP_DSN} }", ERP_DSN="host=a password='{b}: #'")
    assert document.values == {"erp": {"type": "postgres", "dsn": "host=a password='{b}: #'"}}


def test_a_references_value_is_never_read_as_yaml() -> None:
    document = read("a: ${A}\nb: x${A}y", A="{ b: 1 }")
    assert document.values == {"a": "{ b: 1 }", "b": "x{ b: 1 }y"}


@pytest.mark.parametrize("value", [None, ""])
def test_a_reference_without_a_value_is_a_problem_in_its_line(value: str | None) -> None:
    document = read("a: 1\nb: ${CRM_DSN}", **({} if value is None else {"CRM_DSN": value}))
    assert sentences(document) == ["${CRM_DSN} has no value"]
    assert document.line(document.problems[0].path) == 2


def test_an_unset_reference_suggests_the_nearest_name() -> None:
    assert read("a: ${CRM_DSM}", CRM_DSN="x").problems[0].suggestion == "did you mean CRM_DSN?"


def test_a_doubled_dollar_writes_a_literal_reference() -> None:
    assert read('a: "$${HOME}"', HOME="/root").values == {"a": "${HOME}"}


def test_a_reference_in_a_comment_or_a_key_is_not_resolved() -> None:
    document = read("# ${NOBODY}\n'${KEY}': 1  # ${NOBODY}")
    assert document.values == {"${KEY}": 1}
    assert document.problems == []


def test_words_that_yaml_1_1_took_for_booleans_are_text() -> None:
    assert read("on: yes\noff: no").values == {"on": "yes", "off": "no"}


def test_numbers_are_exact() -> None:
    assert read("a: 0.1\nb: 0o17\nc: 12").values == {"a": Decimal("0.1"), "b": 15, "c": 12}


def test_a_key_written_twice_is_named_with_both_lines() -> None:
    document = read("a:\n  b: 1\n  b: 2")
    assert sentences(document) == ["b is written twice, here and in line 2"]
    assert document.line(document.problems[0].path) == 3
    assert document.values == {"a": {"b": 1}}


def test_the_line_of_what_is_missing_is_that_of_what_is_around_it() -> None:
    document = read("a:\n  b:\n    c: 1")
    assert document.line(("a", "b", "c", "d")) == 3
    assert document.line(("a", "x")) == 1
    assert document.line(("x",)) == 1


@pytest.mark.parametrize(
    ("text", "line"), [("a: [1,\nb: %x", 2), ("a: b: c", 1), ("\ta: 1", 1), ("a: 1\n---\nb: 2", 2), ("a: *nobody", 1)]
)
def test_broken_yaml_is_one_problem_with_its_line(text: str, line: int) -> None:
    document = read(text)
    assert len(document.problems) == 1
    assert document.problems[0].sentence.startswith("this is not YAML")
    assert document.line(document.problems[0].path) == line


@pytest.mark.parametrize("text", ["", "# nothing", "- a", "word", "a: \x01"])
def test_a_file_that_is_no_mapping_is_one_problem(text: str) -> None:
    assert len(read(text).problems) == 1


def test_a_mapping_that_contains_itself_ends() -> None:
    document = read("a: &a\n  b: *a")
    assert sentences(document) == ["this is nested too deeply: at most 40 levels"]
    assert document.problems[0].path == ("a", *["b"] * DEEPEST)


def test_aliases_that_multiply_are_one_problem() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    document = Document({})
    document.read("\n".join(lines))
    assert [problem.sentence for problem in document.problems] == [
        "the file has more than 100000 values, each alias counted as what it stands for"
    ]


@pytest.mark.parametrize(
    "text",
    ["a: " + "[" * 3000 + "]" * 3000, "a: " + "{ a: " * 3000, "\n".join("  " * n + f"a{n}:" for n in range(1500))],
    ids=["lists", "mappings", "blocks"],
)
def test_a_file_of_any_depth_ends_at_the_limit_with_one_problem(text: str) -> None:
    document = Document({})
    document.read(text)
    assert [problem.sentence for problem in document.problems] == ["this is nested too deeply: at most 40 levels"]
