"""The demo's comparison can fail: each way in which a sidecar could be wrong is reported, and a correct one passes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from copy import deepcopy
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from cdc_merge.demo.acts.conflict_acts import POINTS_LIMIT
from cdc_merge.demo.conflict_tally import ConflictTally, percentile
from cdc_merge.demo.initial_data import COUNTS, fill, key_of
from cdc_merge.demo.sentences import conflict_sentence
from cdc_merge.demo.systems import FactValue, column_value, entities, template
from cdc_merge.demo.truth import CLOSED, OPEN, Planned, TrueRecord, World
from cdc_merge.demo.verify import Rows, Verdict, conflict_deviations, readable, verdict
from cdc_merge.model import BatchMerged, Candidate, Conflict, ConflictMoved, DetectedConflict, Place, Stamp

Documents = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture
def world() -> World:
    world = World()
    fill(world, random.Random(3))
    return world


def records(world: World) -> Iterator[TrueRecord]:
    return (record for of_entity in world.records.values() for record in of_entity.values())


def shown(value: FactValue) -> str | int | None:
    written = column_value(value)
    return str(written) if isinstance(written, Decimal) else written


def right_documents(world: World) -> Documents:
    """What a faultless sidecar would answer."""
    return {
        (record.entity.name, record.key): {
            "entity": record.entity.name,
            "key": record.key,
            "deleted": record.deleted,
            "merged": {name: shown(value) for name, value in record.merged.items()},
            "sources": {
                source: {"presence": "present", "values": {name: shown(value) for name, value in held.items()}}
                for source, held in record.rows.items()
            },
        }
        for record in records(world)
    }


def right_rows(world: World) -> Rows:
    return {
        (source, record.entity.name, record.key): {name: column_value(value) for name, value in held.items()}
        for record in records(world)
        for source, held in record.rows.items()
    }


def right_conflicts(world: World) -> list[dict[str, Any]]:
    return [conflict(question) for question in world.planned]


def conflict(question: Planned, status: str = "open", *, announced: bool = True) -> dict[str, Any]:
    when = "2026-01-01T00:00:00.000000Z" if announced else None
    return {**question._asdict(), "status": status, "announced_at": when, "labels": []}


def judged(world: World, documents: Documents) -> Verdict:
    return verdict(world, documents.values(), right_conflicts(world), right_rows(world))


def test_a_faultless_sidecar_is_not_accused_of_anything(world: World) -> None:
    found = judged(world, right_documents(world))
    assert found.deviations == ()
    assert found.records_checked == sum(COUNTS.values())


@pytest.mark.parametrize(
    ("field", "wrong"),
    [("name", "somebody else"), ("points", 1), ("tags", "retail;vip"), ("phone", "138"), ("remark", None)],
)
def test_one_wrong_merged_value_is_named_with_entity_key_and_field(world: World, field: str, wrong: object) -> None:
    documents = right_documents(world)
    documents["customer", "C0001"]["merged"][field] = wrong
    (deviation,) = judged(world, documents).deviations
    assert (deviation.about, deviation.entity, deviation.key, deviation.field) == (
        "mismatch",
        "customer",
        "C0001",
        field,
    )


def test_a_view_that_differs_from_the_table_is_a_mismatch(world: World) -> None:
    documents = right_documents(world)
    documents["order", "O0001"]["sources"]["erp"]["values"]["status"] = "lost"
    (deviation,) = judged(world, documents).deviations
    assert deviation.field == "status at erp"


@pytest.mark.parametrize("wrong", [{"deleted": True}, {"sources": {}}])
def test_a_record_that_should_live_must_live_where_it_lives(world: World, wrong: Mapping[str, object]) -> None:
    documents = right_documents(world)
    documents["contract", "K0001"] |= wrong
    assert judged(world, documents).count("mismatch") >= 1


def test_missing_and_invented_records_are_mismatches(world: World) -> None:
    documents = right_documents(world)
    invented = deepcopy(documents.pop(("customer", "C0001")))
    documents["customer", "X"] = invented | {"key": "X"}
    assert {(each.key, each.got) for each in judged(world, documents).deviations} == {
        ("C0001", "no such record"),
        ("X", "a record"),
    }


def test_the_spelling_of_a_value_does_not_matter_but_its_meaning_does(world: World) -> None:
    customer = world.records["customer"]["C0001"]
    contract = world.records["contract"]["K0001"]
    assert readable(customer, "phone", "138-1234-5678") == readable(customer, "phone", "13812345678")
    assert readable(customer, "tags", "b;a") == readable(customer, "tags", frozenset({"a", "b"}))
    assert readable(contract, "amount", Decimal("1.50")) == readable(contract, "amount", "1.5")
    assert readable(customer, "name", None) != readable(customer, "name", "None")


PHONE = Planned("customer", "C1", "phone", "concurrent_update")


@pytest.mark.parametrize(
    ("planned", "found", "about"),
    [
        ({PHONE: OPEN}, [conflict(PHONE)], []),
        ({PHONE: OPEN}, [], ["missed"]),
        ({PHONE: OPEN}, [conflict(PHONE, "closed")], ["missed"]),
        ({PHONE: CLOSED}, [conflict(PHONE, "closed")], []),
        ({PHONE: CLOSED}, [], ["missed"]),
        ({PHONE: CLOSED}, [conflict(PHONE)], ["unplanned"]),
        ({PHONE: CLOSED}, [conflict(PHONE, "closed"), conflict(PHONE)], ["unplanned"]),
        ({}, [conflict(PHONE)], ["unplanned"]),
        ({}, [conflict(PHONE, "closed")], ["unplanned"]),
        ({}, [conflict(PHONE, "closed", announced=False)], []),
    ],
)
def test_planned_questions_must_be_there_and_no_others(
    planned: Mapping[Planned, str], found: list[dict[str, Any]], about: list[str]
) -> None:
    assert [deviation.about for deviation in conflict_deviations(planned, found)] == about


def test_every_first_difference_is_planned_as_a_divergence(world: World) -> None:
    differing = {
        (record.entity.name, record.key, name)
        for record in records(world)
        for name in record.entity.merges
        if len({readable(record, name, record.rows[source][name]) for source in record.sources_with(name)}) > 1
    }
    assert {planned[:3] for planned in world.planned} == differing
    assert {planned.kind for planned in world.planned} == {"divergence"}


def test_a_record_is_in_one_act_at_a_time(world: World) -> None:
    dice = random.Random(1)
    key = key_of("order", 1)
    with world.pick("order", lambda record: record.key == key, random.Random(2)) as first:
        taken = {key} if first else set()
        for _ in range(200):
            with world.pick("order", lambda record: record.key in taken, dice) as second:
                assert second is None


def test_a_conflict_about_a_whole_record_freezes_it_until_it_is_closed(world: World) -> None:
    dice = random.Random(1)
    record = world.records["customer"][key_of("customer", 100)]
    with world.pick_with_record_conflict("invariant", dice) as picked:
        assert picked is None
    world.expect_open(record, None, "invariant")
    assert not any(record.free(name) for name in record.entity.merges)
    with world.pick_with_record_conflict("invariant", dice) as picked:
        assert picked is record
        world.expect_closed(record, None, "invariant")
        with world.pick_with_record_conflict("invariant", dice) as again:
            assert again is None
    assert all(record.free(name) for name in record.entity.merges)
    assert world.expected_conflicts()[Planned("customer", record.key, None, "invariant")] == CLOSED


def test_the_limit_that_people_break_is_that_of_the_check() -> None:
    (check,) = YAML(typ="safe").load(template())["entities"]["customer"]["checks"]
    assert check == {"name": "points_limit", "expr": f"record.points <= {POINTS_LIMIT}"}


def test_the_example_is_the_demos_own_configuration() -> None:
    example = Path(__file__).parents[2] / "examples" / "cdc-merge.yaml"
    assert example.read_text(encoding="utf-8") == template()


def test_every_field_is_held_by_at_least_two_systems() -> None:
    assert all(len(entity.sources_with(name)) > 1 for entity in entities().values() for name in entity.merges)


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([], 0.5) == 0.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 3.0
    assert percentile([1.0, 2.0], 0.99) == 2.0


def question() -> Conflict:
    place = Place("7", 1, 1, "t", 0)
    candidates = (
        Candidate("crm", "138", Stamp(1, 0, "crm"), 1, "wang", place),
        Candidate("erp", "139", Stamp(2, 0, "erp"), 2, None, place),
    )
    detected = DetectedConflict("customer", "C0017", "phone", None, "concurrent_update", "high", candidates)
    return Conflict("1", detected, "settling", 1, 1)


def test_a_conflict_is_shown_as_a_sentence() -> None:
    assert (
        conflict_sentence(question()) == "C0017 phone: CRM (wang) wrote 138, ERP wrote 139; neither had seen the other"
    )


def test_a_conflict_is_shown_once_however_many_facts_report_it() -> None:
    tally = ConflictTally()
    tally(
        BatchMerged(
            {}, {("crm", "customer", "update"): 2, ("crm", "customer", "snapshot"): 9}, {}, {}, 0, (question(),)
        )
    )
    tally(ConflictMoved("raised", question()))
    count, lines = tally.lines_after(0)
    assert (count, len(lines)) == (1, 1)
    assert tally.lines_after(count) == (1, [])
    assert tally.changes() == {"crm": 2}
