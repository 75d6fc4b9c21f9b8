"""Rules on one key of a map grade and answer like those on a field: the first in the file that names the key."""

from __future__ import annotations

import json
from typing import Any

from cdc_merge.cel import compile_expression
from cdc_merge.config.reloadable import _merge_options
from cdc_merge.conflicts.detect import Detection, detect
from cdc_merge.conflicts.rules.rulebook import rulebooks
from cdc_merge.conflicts.rules.selection import ruled
from cdc_merge.merge.fold import fold
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.replay import policy_of
from cdc_merge.merge.views import merged
from cdc_merge.model import Json
from cdc_merge.model.plan import FieldPlan, Plan, Rule
from tests.laws.worlds import ENTITY, World
from tests.laws.worlds import entity as entity_of

BEFORE = {"city": "a", "zip": "1", "home": {"street": "s", "floor": "f"}}
KEYS = {"home": {"merge": "map", "keys": {}}, "zip": {"merge": "mv", "severity": "low"}}


def planned(*rules: Rule, **options: Any) -> Plan:
    field = FieldPlan("prefs", "map", options={"keys": KEYS, **options}, value_type="json")
    return ruled(Plan({ENTITY: entity_of(field)}, (), tuple(rules), policy="p"))


def prefs_value(**changed: Any) -> Json:
    return Json(json.dumps(BEFORE | changed, sort_keys=True, separators=(",", ":")))


def disputed(plan: Plan) -> Record:
    """A and B change every key, not knowing of each other; B is the later."""
    world = World(plan.entities[ENTITY])
    world.snapshot("A", prefs=prefs_value())
    world.snapshot("B", prefs=prefs_value())
    world.update("A", prefs=prefs_value(city="b", zip="2", home={"street": "t", "floor": "g"}))
    world.update("B", prefs=prefs_value(city="c", zip="3", home={"street": "u", "floor": "h"}))
    return fold(world.plan, world.changes)


def detection(plan: Plan) -> Detection:
    return detect(disputed(plan), rulebooks(plan, compile_expression)[ENTITY], 0)


def severities(plan: Plan) -> dict[str | None, str]:
    return {detected.field: detected.severity for detected in detection(plan).conflicts}


def answered(plan: Plan) -> set[str | None]:
    return {field for field, _, _ in detection(plan).auto_resolved}


ALL = {"prefs.city": "medium", "prefs.zip": "low", "prefs.home.street": "medium", "prefs.home.floor": "medium"}


def test_without_rules_each_key_is_as_grave_as_the_file_says() -> None:
    assert severities(planned()) == ALL


def test_a_rule_on_one_key_grades_that_key_alone() -> None:
    assert severities(planned(Rule("r", "customer.prefs.city", severity="critical"))) == {
        **ALL,
        "prefs.city": "critical",
    }
    assert severities(planned(Rule("r", "*.prefs.zip", severity="high"))) == {**ALL, "prefs.zip": "high"}


def test_a_rule_on_a_key_of_a_nested_map_grades_that_key_alone() -> None:
    by_rules = severities(planned(Rule("r", "customer.prefs.home.street", severity="high")))
    assert by_rules == {**ALL, "prefs.home.street": "high"}
    by_rules = severities(planned(Rule("r", "customer.prefs.home", severity="high")))
    assert by_rules == {**ALL, "prefs.home.street": "high", "prefs.home.floor": "high"}


def test_the_first_rule_that_names_a_key_is_the_one() -> None:
    city = Rule("city", "customer.prefs.city", severity="critical")
    whole = Rule("whole", "customer.prefs", severity="high")
    rest = dict.fromkeys(ALL, "high")
    assert severities(planned(city, whole)) == {**rest, "prefs.city": "critical"}
    assert severities(planned(whole, city)) == rest


def test_a_rule_on_one_key_answers_that_key_alone() -> None:
    plan = planned(Rule("r", "customer.prefs.city", auto=("earliest",)))
    assert answered(plan) == {"prefs.city"}
    value = merged(disputed(plan)).values["prefs"]
    assert isinstance(value, Json)
    by_rules = json.loads(value)
    assert (by_rules["city"], by_rules["zip"]) == ("b", "3")


def test_a_key_that_a_rule_leaves_to_people_is_not_answered_by_a_later_rule_on_the_map() -> None:
    people = Rule("people", "customer.prefs.city", severity="high")
    machine = Rule("machine", "customer.prefs", auto=("latest",))
    assert answered(planned(people, machine)) == set(ALL) - {"prefs.city"}


def test_a_key_may_switch_agreement_off_by_itself() -> None:
    plan = planned(keys={"city": {"merge": "mv", "agreement": "off"}})
    world = World(plan.entities[ENTITY])
    for source in "AB":
        world.snapshot(source, prefs=prefs_value())
    for source in "AB":
        world.update(source, prefs=prefs_value(city="b", zip="2"))
    world.update("A", prefs=prefs_value(city="c", zip="3"))
    detection = detect(fold(world.plan, world.changes), rulebooks(plan, compile_expression)[ENTITY], 0).conflicts
    assert [detected.field for detected in detection] == ["prefs.city"]


def test_rules_on_a_key_leave_what_is_folded_as_it_is() -> None:
    rules = (Rule("r", "customer.prefs.city", severity="high", auto=("latest",)),)
    assert policy_of(planned(*rules)) == policy_of(planned())
    options = [_merge_options(each.entities[ENTITY].fields["prefs"].options) for each in (planned(*rules), planned())]
    assert options[0] == options[1]
