"""A decision enters the history as a write that has seen all candidates; an edit that has not seen it is a new conflict.

Edits happen in real databases. The decision is made by decisions/decision_write.py, for the conflict that a
replay of the deliveries raises; it arrives in its place, or after everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import pytest

from cdc_merge.decisions.decision_write import DecisionContext, choose, override
from cdc_merge.model import Candidate, Change, Conflict, Stamp
from tests.system.scenarios.incident import Incident
from tests.system.scenarios.merged_state import MergedState, OpenConflict
from tests.system.scenarios.replay import Replay, split
from tests.system.scenarios.sidecars import RecordedDelivery

Begin = Callable[..., Incident]
DeliveryLog = list[tuple[str, RecordedDelivery]]

PHONE = {"phone": "mv"}
HELD = {"C1": {"phone": "0"}}


class BeforeDecision(NamedTuple):
    """An incident, what its sidecar was given before the decision, and the one question then."""

    it: Incident
    before: DeliveryLog
    conflict: Conflict

    def after(self) -> DeliveryLog:
        return [each for each in played(self.it) if each not in self.before]

    def state_after(self, decision: tuple[Change, ...], *, late: bool) -> MergedState:
        """The merged state in the end; with `late` the decision arrives last."""
        replay = Replay(self.it.plain.settings)
        deliver(replay, self.before)
        if not late:
            replay.decide(decision)
        deliver(replay, self.after())
        if late:
            replay.decide(decision)
        return replay.merged_state()

    def context(self) -> DecisionContext:
        latest = max(candidate.stamp for candidate in self.conflict.detected.candidates)
        return DecisionContext(latest.wall_us + 1, Stamp(latest.wall_us, 0, ""), 1, "li")

    def candidate(self, source: str) -> Candidate:
        (found,) = [each for each in self.conflict.detected.candidates if each.source == source]
        return found


def played(it: Incident) -> DeliveryLog:
    """The initial snapshots, then everything after them in the order of arrival."""
    first, rest = split(it.delivery_logs())
    copies = [(name, each) for name, delivery_log in first.items() for each in delivery_log]
    return copies + sorted(
        ((n, p) for n, delivery_log in rest.items() for p in delivery_log), key=lambda each: each[1].arrived_us
    )


def deliver(replay: Replay, delivery_log: DeliveryLog) -> None:
    for source, each in delivery_log:
        replay.deliver(source, each)


def at_the_desk(it: Incident) -> BeforeDecision:
    it.answers()
    before = played(it)
    replay = Replay(it.plain.settings)
    deliver(replay, before)
    replay.merged_state()
    (conflict,) = replay.conflicts(status="open")
    return BeforeDecision(it, before, conflict)


def only(picture: MergedState) -> OpenConflict:
    assert len(picture.open_conflicts) == 1, picture.open_conflicts
    return picture.open_conflicts[0]


def merged(picture: MergedState, key: str = "C1") -> Mapping[str, object]:
    found: Mapping[str, object] = picture.records[key]["merged"]
    return found


LATE = pytest.mark.parametrize("late", [False, True], ids=["in its place", "heard last"])


@LATE
def test_33_an_edit_without_having_seen_the_decision_is_a_new_conflict(incident: Begin, late: bool) -> None:
    it = incident(fields=PHONE, held=HELD)
    it.crm.update("C1", phone="1")
    it.erp.update("C1", phone="2")
    case = at_the_desk(it)
    decision = choose(case.conflict.detected, case.candidate("crm"), case.context())
    decided = case.state_after(decision, late=late)
    assert decided.open_conflicts == ()
    assert merged(decided) == {"phone": "1"}
    it.erp.update("C1", phone="5")
    it.answers()
    said = only(case.state_after(decision, late=late))
    assert said.kind == "concurrent_update"
    assert said.by_source == {"cdc_merge": "1", "erp": "5"}
    it.crm.update("C1", phone="6")
    it.answers()
    assert only(case.state_after(decision, late=late)).by_source == {"crm": "6", "erp": "5"}


@LATE
def test_29b_an_edit_against_a_decision_is_a_new_conflict(incident: Begin, late: bool) -> None:
    it = incident(fields=PHONE, held=HELD)
    it.crm.update("C1", phone="1")
    it.erp.update("C1", phone="2")
    case = at_the_desk(it)
    decision = override(case.conflict.detected, "3", case.context())
    assert merged(case.state_after(decision, late=late)) == {"phone": "3"}
    it.crm.update("C1", phone="2")
    it.answers()
    said = only(case.state_after(decision, late=late))
    assert "cdc_merge" in said.by_source
    assert said.by_source["cdc_merge"] == "3"


@LATE
def test_17_an_edit_after_a_decided_delete_is_a_new_conflict(incident: Begin, late: bool) -> None:
    it = incident(fields=PHONE, held=HELD)
    it.crm.delete("C1")
    it.erp.update("C1", phone="2")
    case = at_the_desk(it)
    decision = choose(case.conflict.detected, case.candidate("crm"), case.context())
    decided = case.state_after(decision, late=late)
    assert decided.open_conflicts == ()
    assert decided.records["C1"]["deleted"]
    it.erp.update("C1", phone="5")
    it.answers()
    said = only(case.state_after(decision, late=late))
    assert (said.kind, said.by_source) == ("update_delete", {"cdc_merge": None, "erp": {"phone": "5"}})


@LATE
def test_17_a_decided_update_keeps_the_record(incident: Begin, late: bool) -> None:
    it = incident(fields=PHONE, held=HELD)
    it.crm.delete("C1")
    it.erp.update("C1", phone="2")
    case = at_the_desk(it)
    decision = choose(case.conflict.detected, case.candidate("erp"), case.context())
    said = case.state_after(decision, late=late)
    assert said.open_conflicts == ()
    assert not said.records["C1"]["deleted"]
    assert merged(said) == {"phone": "2"}


@LATE
def test_choosing_the_update_of_a_record_that_moved_carries_the_edit_to_its_new_key(
    incident: Begin, late: bool
) -> None:
    fields = {"phone": "mv", "name": "mv"}
    it = incident(fields=fields, held={"C1": {"phone": "0", "name": "n"}})
    it.crm.rekey("C1", "C9")
    it.erp.update("C1", phone="2")
    case = at_the_desk(it)
    assert case.conflict.detected.kind == "update_delete"
    decision = choose(case.conflict.detected, case.candidate("erp"), case.context())
    said = case.state_after(decision, late=late)
    assert said.open_conflicts == ()
    assert said.records["C1"]["deleted"]
    assert merged(said, "C9") == {"phone": "2", "name": "n"}
    it.crm.update("C9", phone="7")
    it.answers()
    assert only(case.state_after(decision, late=late)).by_source == {"cdc_merge": "2", "crm": "7"}


def test_choosing_the_move_leaves_the_edit_behind(incident: Begin) -> None:
    it = incident(fields=PHONE, held=HELD)
    it.crm.rekey("C1", "C9")
    it.erp.update("C1", phone="2")
    case = at_the_desk(it)
    said = case.state_after(
        choose(case.conflict.detected, case.candidate("crm"), case.context()),
        late=False,
    )
    assert said.open_conflicts == ()
    assert said.records["C1"]["deleted"]
    assert merged(said, "C9") == {"phone": "0"}
