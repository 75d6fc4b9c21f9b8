"""The committed JSON Schemas are what the shapes generate, and every key of the configuration is described."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cdc_merge.cli.schema_export import SCHEMAS, main, schema
from cdc_merge.merge.types import TYPES
from cdc_merge.model import Candidate, Conflict, DetectedConflict, MergedRecord, Place, SourceView, Stamp
from cdc_merge.queries.document_schemas import ChangeDocument, ConflictDocument, DemoSummary, RecordDocument
from cdc_merge.queries.documents import conflict_json, record_json

COMMITTED = Path(__file__).parents[2] / "schemas"
STAMP = Stamp(1_790_000_000_000_000, 0, "crm")
QUESTION = DetectedConflict(
    entity="customer",
    key="C001",
    field="phone",
    group=None,
    kind="concurrent_update",
    severity="high",
    candidates=(Candidate("crm", "2", STAMP, 1, None, Place("7", 1, 2, "public.customer", 0), (STAMP,)),),
)
CONFLICT = Conflict(id="a", detected=QUESTION, status="open", revision=1, raised_us=1, policy="sha256:" + "0" * 64)
SUMMARY = {
    "sources": {"crm": {"changes": 1}},
    "records": 1,
    "merged_automatically": 0,
    "conflicts": {"concurrent_update": 1},
    "detection_seconds": {"p50": 0.01, "p99": 0.02},
    "verified": {"records_checked": 1, "mismatches": 0, "conflicts_missed": 0, "conflicts_unplanned": 0},
}


def test_the_committed_schemas_are_the_generated_ones(tmp_path: Path) -> None:
    main(tmp_path)
    assert sorted(path.name for path in COMMITTED.glob("*.json")) == sorted(path.name for path in tmp_path.iterdir())
    for path in tmp_path.iterdir():
        assert (COMMITTED / path.name).read_text() == path.read_text(), "run: make schemas"


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_names_its_dialect_and_what_it_is(name: str) -> None:
    document = schema(name)
    assert document["$schema"].endswith("2020-12/schema")
    assert document["title"]
    assert document["description"]


def properties(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for shape in (document, *document["$defs"].values()):
        for name, described in shape.get("properties", {}).items():
            yield f"{shape['title']}.{name}", described


def test_editors_can_describe_every_key_of_the_configuration() -> None:
    # pydantic leaves a description out where the shape that the key refers to has the very same one.
    told = {"description", "$ref"}
    assert [name for name, described in properties(schema("config")) if not told & described.keys()] == []


def test_defaults_are_shown_as_the_file_writes_them() -> None:
    config = schema("config")
    assert config["properties"]["settle"]["default"] == "2s"
    assert config["properties"]["settle"]["type"] == "string"
    assert config["$defs"]["FieldShape"]["properties"]["agreement"]["default"] is True


def test_editors_are_offered_every_merge_type_that_exists() -> None:
    offered = schema("config")["$defs"]["FieldShape"]["properties"]["merge"]["enum"]
    assert set(offered) >= set(TYPES)


def test_a_conflict_as_we_write_it_fits_its_schema() -> None:
    document = json.loads(json.dumps(conflict_json(CONFLICT)))
    assert ConflictDocument.model_validate(document).candidates[0].stamp == str(STAMP)


def test_a_record_as_we_write_it_fits_its_schema() -> None:
    merged = MergedRecord("customer", "C001", False, {"phone": "3"}, {"crm": SourceView("present", {}, STAMP)})
    document = json.loads(json.dumps(record_json(merged, [CONFLICT])))
    assert RecordDocument.model_validate(document).conflicts[0].kind == "concurrent_update"


def test_a_demo_summary_of_the_contract_fits_its_schema() -> None:
    assert DemoSummary.model_validate(SUMMARY).verified.mismatches == 0
    with pytest.raises(ValidationError):
        DemoSummary.model_validate({**SUMMARY, "verified": {}})


PUSHED = {
    "id": "1",
    "table": "t",
    "operation": "update",
    "key": {"no": "C001"},
    "after": {"phone": "2"},
    "committed_at": "2026-01-01T00:00:00Z",
}


def test_a_pushed_change_of_the_contract_fits_its_schema() -> None:
    (change,) = ChangeDocument.model_validate({"changes": [{**PUSHED, "copy": True}]}).changes
    assert (change.copy_, change.before) == (True, None)


@pytest.mark.parametrize("wrong", [{"operation": "truncate"}, {"id": ""}, {"kopy": True}, {"key": "C001"}])
def test_a_pushed_change_that_is_none_does_not_fit(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ChangeDocument.model_validate({"changes": [PUSHED | wrong]})
