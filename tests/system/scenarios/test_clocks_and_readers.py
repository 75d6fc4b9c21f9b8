"""Clocks that lie, readers that are late, servers that stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psycopg

from cdc_merge.demo.servers import DemoServer
from cdc_merge.model import stamp_from_text
from tests.system.scenarios.incident import Incident, Setting, Site
from tests.system.scenarios.people import Mark
from tests.system.scenarios.replay import Replay, split
from tests.system.scenarios.sidecars import LOOK_EVERY_S, document, wait_for

Begin = Callable[..., Incident]

HELD = {"C1": {"phone": "0"}}
HOUR_US = 3_600_000_000
LONG_AGO = datetime(2001, 2, 3, tzinfo=UTC)


def lag_bytes(it: Incident, system: str) -> int:
    """The plain sidecar's lag behind the system, as its reader reports it at intervals."""
    sources = {each["name"]: each for each in document(it.plain, "/api/v1/sources")["items"]}
    lag: int = sources[system]["lag_bytes"]
    return lag


def test_34_equal_commit_times_have_one_winner_in_every_order_of_arrival(incident: Begin) -> None:
    it = incident(fields={"phone": "lww", "mobile": "mv"}, held=HELD, systems=("crm", "erp", "finance"))
    at = it.crm.clock()
    it.finance.update("C1", Mark(origin="clock", at=at), phone="3", mobile="3")
    it.crm.update("C1", Mark(origin="clock", at=at), phone="1", mobile="1")
    it.erp.update("C1", Mark(origin="clock", at=at), phone="2", mobile="2")
    said = it.answers()
    stamps = [stamp_from_text(each["stamp"]) for each in it.history("C1") if each["kind"] == "write"]
    assert len({stamp.wall_us for stamp in stamps}) == 1, "the commit times were to be equal"
    assert said.merged() == {"phone": "3", "mobile": "3"}
    assert said.conflict.by_source == {"crm": "1", "erp": "2", "finance": "3"}


def test_35_a_clock_an_hour_ahead_does_not_win_for_ever(incident: Begin) -> None:
    it = incident(fields={"phone": "lww"}, held=HELD, more={"clock": {"max_ahead": "300ms"}})
    it.erp.update("C1", Mark(origin="clock", at=it.erp.clock() + timedelta(hours=1)), phone="fast")
    said = it.answers()
    assert said.merged() == {"phone": "fast"}
    assert it.metric('cdc_merge_clock_cut_total{source="erp"}') == 1
    cut = max(stamp_from_text(stamp).wall_us for stamp in it.last_stamps("C1", "erp"))
    deadline = time.monotonic() + 10
    while it.crm.clock().timestamp() * 1e6 <= cut:
        assert time.monotonic() < deadline, "the stamp was not cut to the bound"
        time.sleep(LOOK_EVERY_S)
    it.crm.update("C1", phone="later")
    assert it.answers().merged() == {"phone": "later"}


def test_36_a_transaction_with_a_time_from_2001_keeps_its_place_in_its_system(incident: Begin) -> None:
    it = incident(fields={"phone": "mv"}, held=HELD)
    it.crm.update("C1", phone="1")
    it.crm.update("C1", Mark(origin="bridge", at=LONG_AGO), phone="2")
    said = it.answers()
    assert said.open_conflicts == ()
    assert said.merged() == {"phone": "2"}


def test_36_a_write_of_a_listed_origin_is_a_copy(incident: Begin) -> None:
    it = incident(fields={"points": "counter"}, held={"C1": {"points": 10}}, source={"copies": {"origins": ["bridge"]}})
    it.crm.add("C1", points=5)
    it.erp.update("C1", Mark(origin="bridge", at=LONG_AGO), points=15)
    said = it.answers()
    assert said.open_conflicts == ()
    assert said.merged() == {"points": "15"}


def test_39_a_reader_that_catches_up_raises_no_false_conflict(incident: Begin) -> None:
    it = incident(fields={"phone": "mv", "name": "mv"}, held={"C1": {"phone": "0", "name": "n"}})
    with it.late("erp"):
        it.erp.update("C1", phone="1")
        it.crm.copies("C1", phone="1")
        it.crm.update("C1", phone="2")
        it.crm.update("C1", name="a")
        it.erp.update("C1", name="b")
        after = it.crm.clock().timestamp()
        it.wait_until_durable("crm")
        assert it.metric("cdc_merge_watermark_timestamp_seconds") < after, "a source that is down holds the watermark"
        wait_for(it.plain, lambda: lag_bytes(it, "erp") > 0, "the source that is down lags behind")
        assert document(it.plain, "/api/v1/conflicts")["items"] == []
    said = it.answers()
    assert said.merged() == {"phone": "2", "name": "b"}
    assert (said.conflict.field, said.conflict.by_source) == ("name", {"crm": "a", "erp": "b"})
    assert said.resolutions() == []


def test_39_a_reader_an_hour_late_raises_no_false_conflict_and_is_reported_late(incident: Begin) -> None:
    it = incident(fields={"phone": "mv", "name": "mv"}, held={"C1": {"phone": "0", "name": "n"}})
    it.erp.update("C1", phone="1")
    it.crm.copies("C1", phone="1")
    it.crm.update("C1", phone="2")
    it.crm.update("C1", name="a")
    it.erp.update("C1", name="b")
    said = it.answers()
    first, rest = split(it.delivery_logs())
    replay = Replay(it.plain.settings)
    for name in ("crm", "erp"):
        for played in first[name]:
            replay.deliver(name, played)
    for played in rest["crm"]:
        replay.deliver("crm", played)
    held_us = replay.watermark_us
    for played in rest["crm"][-1:]:
        replay.deliver("crm", played._replace(arrived_us=played.arrived_us + HOUR_US))
    assert replay.conflicts() == []
    assert replay.watermark_us == held_us < rest["erp"][0].arrived_us, "a source that is down holds the watermark"
    for played in rest["erp"]:
        replay.deliver("erp", played._replace(arrived_us=played.arrived_us + HOUR_US))
    it.compare("the sidecar whose reader was an hour late", replay.merged_state(), said.merged_state)
    assert said.conflict.by_source == {"crm": "a", "erp": "b"}
    assert replay.conflicts(status="closed") == []


def test_41_a_server_stops_at_once_with_readers_attached_and_is_followed_after_its_restart(
    site: Site, new_server: Callable[..., DemoServer]
) -> None:
    server = new_server()
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        own = Site(
            {**site.connections, "crm": connection},
            {**site.dsns, "crm": server.dsn()},
            site.directory,
            site.process_pool,
        )
        it = Incident(own, "restarted", Setting(fields={"phone": "mv"}, held=HELD))
        it.begin()
    began = time.monotonic()
    server.stop("fast")
    took_s = time.monotonic() - began
    it.erp.update("C1", phone="2")
    server.start()
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        it.crm.connection = connection
        it.crm.update("C1", phone="1")
        said = it.answers()
        it.end()
    assert took_s < 2
    assert said.conflict.by_source == {"crm": "1", "erp": "2"}
    assert said.resolutions() == []
