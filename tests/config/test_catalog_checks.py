"""The file against what the catalogs say: columns that exist, types that can merge, one value type per field."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdc_merge.config import Settings, load
from cdc_merge.config.catalog_checks import catalog_problems, with_value_types
from cdc_merge.config.problems import path_text

BOTH = frozenset({"crm", "erp"})
FILE = """
sources:
  crm: { type: postgres, dsn: a, actor: { column: updated_by } }
  erp: { type: postgres, dsn: b }
entities:
  customer:
    from:
      crm: { table: customer, key: no, fields: { value: worth } }
      erp: { table: partner, key: code, fields: { value: amount } }
    fields:
      value: FIELD
"""
ACTOR = {"updated_by": (25, "text")}
KEYS = ({"no": (25, "text")} | ACTOR, {"code": (25, "text")})


def settings(tmp_path: Path, field: str = "{ merge: mv }", text: str = FILE) -> Settings:
    (tmp_path / "x.yaml").write_text(text.replace("FIELD", field), encoding="utf-8")
    return load(tmp_path / "x.yaml", {"HOME": "/h"})


def facts(crm: str, erp: str) -> dict[tuple[str, str], dict[str, tuple[int, str]]]:
    """Both tables, the mapped columns with these types (by name only, as another source might say them)."""
    return {
        ("crm", "public.customer"): {**KEYS[0], "worth": (0, crm)},
        ("erp", "public.partner"): {**KEYS[1], "amount": (0, erp)},
    }


def test_matching_catalogs_have_no_problem(tmp_path: Path) -> None:
    assert catalog_problems(settings(tmp_path), facts("text", "character varying(20)"), BOTH) == []


def test_a_missing_table_is_named_where_the_file_maps_it(tmp_path: Path) -> None:
    known = facts("text", "text")
    del known["erp", "public.partner"]
    checked = settings(tmp_path)
    (problem,) = catalog_problems(checked, known, BOTH)
    assert path_text(problem.path) == "entities.customer.from.erp.table"
    assert problem.sentence == "erp has no table public.partner"
    assert checked.lines[problem.path] == 9


@pytest.mark.parametrize(
    ("column", "path"),
    [
        ("worth", "entities.customer.from.crm.fields.value"),
        ("no", "entities.customer.from.crm.key"),
        ("updated_by", "sources.crm.actor.column"),
    ],
)
def test_a_missing_column_is_named_where_the_file_says_it(tmp_path: Path, column: str, path: str) -> None:
    known = facts("text", "text")
    kept = known["crm", "public.customer"]
    kept[f"{column}s"] = kept.pop(column)
    (problem,) = catalog_problems(settings(tmp_path), known, BOTH)
    assert path_text(problem.path) == path
    assert (problem.sentence, problem.suggestion) == (
        f"public.customer has no column {column!r}",
        f"did you mean {column}s?",
    )


def test_a_source_that_did_not_answer_is_not_judged(tmp_path: Path) -> None:
    known = facts("text", "text")
    del known["erp", "public.partner"]
    assert catalog_problems(settings(tmp_path), known, frozenset({"crm"})) == []


@pytest.mark.parametrize(
    ("field", "crm", "erp", "value_type"),
    [
        ("{ merge: mv }", "text", "character varying(20)", "text"),
        ("{ merge: mv }", "integer", "bigint", "integer"),
        ("{ merge: counter }", "integer", "numeric(10,2)", "decimal"),
        ("{ merge: mv }", "double precision", "real", "float"),
        ("{ merge: max }", "date", "date", "date"),
        ("{ merge: mv }", "timestamp with time zone", "timestamp without time zone", "timestamp"),
        ("{ merge: mv }", "json", "jsonb", "json"),
        ("{ merge: mv }", "bytea", "bytea", "bytes"),
        ("{ merge: set }", "text[]", "text", "array"),
        ("{ merge: set }", "text", "jsonb", "json"),
        ("{ merge: set }", "text", "text", "text"),
        ("{ merge: flag }", "boolean", "boolean", "boolean"),
    ],
)
def test_a_field_has_one_value_type(tmp_path: Path, field: str, crm: str, erp: str, value_type: str) -> None:
    checked = settings(tmp_path, field)
    assert catalog_problems(checked, facts(crm, erp), BOTH) == []
    typed = with_value_types(checked.plan, facts(crm, erp))
    assert typed.entities["customer"].fields["value"].value_type == value_type
    assert typed.policy == checked.plan.policy


@pytest.mark.parametrize(
    ("field", "crm", "erp", "sentence"),
    [
        ("{ merge: counter }", "text", "integer", "merge: counter cannot read the column of crm (text)"),
        ("{ merge: counter }", "double precision", "integer", "merge: counter cannot read the column of crm (float)"),
        ("{ merge: max }", "jsonb", "integer", "merge: max cannot read the column of crm (json)"),
        ("{ merge: min }", "boolean", "boolean", "cannot read the column of crm (boolean), erp (boolean)"),
        ("{ merge: flag }", "boolean", "integer", "merge: flag cannot read the column of erp (integer)"),
        ("{ merge: set }", "integer", "text[]", "merge: set cannot read the column of crm (integer)"),
        ("{ merge: mv }", "text", "integer", "these columns cannot be compared: crm has text, erp has integer"),
        ("{ merge: mv }", "date", "timestamptz", "these columns cannot be compared: crm has date, erp has timestamp"),
        ("{ merge: mv }", "numeric", "real", "these columns cannot be compared: crm has decimal, erp has float"),
        (
            "{ merge: lww }",
            "tsrange",
            "tstzrange",
            "is tsrange in crm and tstzrange in erp: no value of type",
        ),
        ("{ merge: set }", "integer[]", "text", "no value of type int4 equals one of type text"),
        ("{ merge: set }", "integer[]", "text[]", "no value of type int4[] equals one of type text[]"),
        ("{ agreement: past }", "boolean", "boolean", "past values prove nothing for a boolean"),
    ],
)
def test_types_that_the_merge_type_cannot_merge_are_named(
    tmp_path: Path, field: str, crm: str, erp: str, sentence: str
) -> None:
    checked = settings(tmp_path, field)
    (problem,) = catalog_problems(checked, facts(crm, erp), BOTH)
    assert sentence in problem.sentence
    assert 11 in {checked.lines.get(problem.path), checked.lines.get(problem.path[:-1])}


def test_a_field_that_the_file_does_not_list_is_named_where_it_is_mapped(tmp_path: Path) -> None:
    checked = settings(tmp_path, text=FILE.partition("    fields:\n")[0])
    (problem,) = catalog_problems(checked, facts("text", "integer"), BOTH)
    assert checked.lines[problem.path] == 9


def test_the_members_of_a_group_must_be_comparable_too(tmp_path: Path) -> None:
    text = FILE.replace("value: worth", "value: worth, key: no").replace("value: amount", "value: amount, key: code")
    grouped = text.partition("    fields:\n")[0] + "    groups: { both: { fields: [value, key] } }\n"
    checked = settings(tmp_path, text=grouped)
    (problem,) = catalog_problems(checked, facts("text", "integer"), BOTH)
    assert problem.sentence.startswith("these columns cannot be compared")


def test_value_types_stay_open_where_no_catalog_was_read(tmp_path: Path) -> None:
    plan = with_value_types(settings(tmp_path).plan, {})
    assert plan.entities["customer"].fields["value"].value_type == ""


def test_what_a_rule_calculates_with_must_be_a_number_in_the_catalogs(tmp_path: Path) -> None:
    text = FILE + 'rules: [ { name: jumps, on: customer.value, when: "abs(new - old) > 5" } ]\n'
    assert catalog_problems(settings(tmp_path, text=text), facts("integer", "numeric"), BOTH) == []
    (problem,) = catalog_problems(settings(tmp_path, text=text), facts("text", "text"), BOTH)
    assert path_text(problem.path) == "rules[0].when"
    assert problem.sentence.startswith("line 1, column ")
