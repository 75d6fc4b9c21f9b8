"""Heartbeats: which are ours, which were lost, and when the next one is written."""

from __future__ import annotations

import math

from cdc_merge.mapping.mapper import Mapper
from cdc_merge.model import Message, Transaction
from cdc_merge.model.heartbeats import HEARTBEAT_PREFIX, Heartbeat, HeartbeatGaps, heartbeat_content, heartbeats_in
from cdc_merge.model.plan import Plan
from cdc_merge.sources.postgres.heartbeat_writer import HeartbeatWriter
from cdc_merge.sources.spill import SpillFile
from cdc_merge.worker.ingest import SourceIngest


def beat(sequence: int, run: str = "a", slot: str = "ours") -> Heartbeat:
    return Heartbeat(slot, run, sequence, 1_000)


def message(content: str, prefix: str = HEARTBEAT_PREFIX) -> Message:
    return Message(prefix, content.encode(), transactional=True)


def lost(*beats: Heartbeat) -> list[int]:
    pulse = HeartbeatGaps()
    return [pulse.lost_before(each) for each in beats]


def test_a_number_that_is_passed_over_is_lost() -> None:
    assert lost(beat(1), beat(2), beat(5), beat(6)) == [0, 0, 2, 0]


def test_of_a_run_that_was_joined_late_nothing_is_known_to_be_lost() -> None:
    assert lost(beat(57), beat(58)) == [0, 0]


def test_a_new_run_begins_with_its_first_number() -> None:
    assert lost(beat(57), beat(1, "b"), beat(2, "b")) == [0, 0, 0]
    assert lost(beat(57), beat(3, "b")) == [0, 2]


def test_only_readable_messages_of_our_own_slot_are_heartbeats() -> None:
    ours = beat(1)
    messages = [
        message(heartbeat_content(ours)),
        message(heartbeat_content(beat(1, slot="another"))),
        message(heartbeat_content(ours), "cdc_merge.actor"),
        message("{}"),
        message("not json"),
        message("[]"),
    ]
    assert list(heartbeats_in(messages, "ours")) == [ours]


def test_a_heartbeat_that_is_delivered_again_is_neither_counted_nor_lost() -> None:
    ingest = SourceIngest("crm", Mapper("crm", (), Plan({}, ())), "ours", SpillFile)

    def taken(sequence: int) -> list[int]:
        tx = Transaction("crm", "7", 1, 100 * sequence, 1000, None, (message(heartbeat_content(beat(sequence))),), ())
        return [lost for _, lost in ingest.take(tx, None, 2000).heartbeats]  # type: ignore[arg-type] # nothing is stored

    assert [taken(1), taken(2), taken(1), taken(2), taken(5)] == [[0], [0], [], [], [2]]
    assert ingest.tally.counts()[("duplicates_dropped", "")] == 2


REFUSED_RETRY_S = 300.0


class Listening:
    """A heart that beats every ten seconds, and what it said."""

    def __init__(self, every_s: float | None = 10.0) -> None:
        self.said: list[str] = []
        self.heart = HeartbeatWriter("ours", every_s, self.said.append, REFUSED_RETRY_S)

    def next(self) -> Heartbeat:
        (found,) = heartbeats_in([message(self.heart.message(1_000))], "ours")
        return found


def test_a_number_is_used_again_until_the_server_has_committed_it() -> None:
    it = Listening()
    first = it.next()
    it.heart.on_sent()
    it.heart.on_result("no", 5.0)
    assert it.next() == first
    it.heart.on_sent()
    it.heart.on_result(None, 400.0)
    assert it.next() == first._replace(sequence=2)


def test_after_a_connection_that_ended_without_an_answer_a_new_run_begins() -> None:
    it = Listening()
    first = it.next()
    it.heart.on_connect()
    assert it.next() == first, "nothing was under way"
    it.heart.on_sent()
    it.heart.on_connect()
    assert it.next().run != first.run
    assert it.next().sequence == 1
    assert it.heart.is_due(0.0)


def test_a_heartbeat_is_due_when_its_time_is_over_and_none_is_under_way() -> None:
    it = Listening()
    assert it.heart.is_due(100.0)
    it.heart.on_sent()
    assert not it.heart.is_due(1_000.0)
    it.heart.on_result(None, 100.0)
    assert [it.heart.is_due(at) for at in (109.9, 110.0)] == [False, True]
    assert it.heart.sent == 1


def test_a_refused_heartbeat_is_reported_once_and_retried_later() -> None:
    it = Listening()
    at_s = 0.0
    for _ in range(3):
        assert it.heart.is_due(at_s)
        it.heart.on_sent()
        it.heart.on_result("permission denied", at_s)
        at_s += REFUSED_RETRY_S
        assert not it.heart.is_due(at_s - 1)
    assert it.said == ["may not write heartbeats (permission denied): keepalives alone advance its slot"]
    assert it.heart.is_permitted is False
    it.heart.on_result(None, at_s)
    assert it.said[1:] == ["may write heartbeats again"]
    assert it.heart.sent == 1


def test_without_an_interval_there_is_no_heartbeat() -> None:
    it = Listening(None)
    assert not it.heart.is_due(math.inf)
