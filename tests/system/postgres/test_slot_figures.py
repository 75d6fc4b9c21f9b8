"""Slot figures of real servers as a scrape shows them: invalidation and its reason, inactive since when, the
vacuum that it holds back, what was written aside to decode it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry

from cdc_merge.demo.servers import DemoServer
from cdc_merge.model import Position, SourceStatus, StoreFigures
from cdc_merge.model.plan import Plan
from cdc_merge.observers.gauges import GaugeCollector, Gauges
from cdc_merge.observers.labels import INVALIDATIONS, Labels
from cdc_merge.sources.postgres.reader import PostgresSource
from tests.support.databases import skip_unless_installed
from tests.system.postgres.positions import SETUP, TABLES, read_once
from tests.system.postgres.reading import Reading, run, wait_for

SMALL = {"max_slot_wal_keep_size": "1MB", "max_wal_size": "32MB", "min_wal_size": "32MB"}
FILL = ("SELECT pg_logical_emit_message(false, 'fill', repeat('x', 9000000))", "SELECT pg_switch_wal()")
NAMES_SINCE = 17  # from this version on a server says since when and why


def scraped(status: SourceStatus, name: str, /, **labels: str) -> float | None:
    registry = CollectorRegistry()
    registry.register(GaugeCollector("cdc_merge_", Labels(Plan({}, ())), Gauges(StoreFigures, lambda: [status])))
    return registry.get_sample_value(f"cdc_merge_{name}", {"source": "crm", **labels})


def reasons(status: SourceStatus) -> list[str]:
    """At which reasons the state set stands."""
    known = ("none", *INVALIDATIONS, "other")
    return [reason for reason in known if scraped(status, "slot_invalidated", reason=reason)]


def looked(reading: Reading, fact: Callable[[SourceStatus], bool], what: str) -> SourceStatus:
    def look() -> SourceStatus | None:
        reading.take()
        status = reading.source.status()
        return status if fact(status) else None

    found: SourceStatus = wait_for(look, what)
    return found


def pause(reading: Reading, position: Position | None) -> None:
    assert isinstance(reading.source, PostgresSource)
    reading.source.pause(position)


@pytest.fixture(params=["15", "17", "18"])
def overrun(request: pytest.FixtureRequest, new_server: Callable[..., DemoServer]) -> tuple[DemoServer, Position]:
    """A server that keeps little WAL and gave up the slot of a source that was read once, and how far it was read."""
    version: str = request.param
    skip_unless_installed(version)
    server = new_server(settings=SMALL, version=version)
    run(server.dsn(), *SETUP)
    position, _ = read_once(server.dsn())
    for _ in range(4):
        run(server.dsn(), *FILL)
    run(server.dsn(), "CHECKPOINT")
    return server, position


def test_a_refused_reader_reports_the_reason_of_the_slots_invalidation(
    overrun: tuple[DemoServer, Position],
) -> None:
    server, position = overrun
    with Reading(server.dsn(), TABLES).start(position) as reading:
        assert reading.refusal().problem == "slot_lost"
        status = reading.source.status()
        assert reasons(status) == ["wal_removed"]
        assert scraped(status, "slot_wal_status", status="lost") == 1
        assert (scraped(status, "slot_inactive_seconds") or 0) >= 0


def test_a_paused_source_reports_that_its_slot_was_invalidated(overrun: tuple[DemoServer, Position]) -> None:
    server, position = overrun
    with Reading(server.dsn(), TABLES) as reading:
        pause(reading, position)
        status = looked(reading, lambda status: status.invalidation is not None, "the slot was looked at")
        assert reasons(status) == ["wal_removed"]


def test_a_slot_that_is_idle_for_too_long_is_invalidated_with_its_own_reason(
    new_server: Callable[..., DemoServer],
) -> None:
    server = new_server(settings={"idle_replication_slot_timeout": "1s"})
    run(server.dsn(), *SETUP)
    position, _ = read_once(server.dsn())

    def is_given_up() -> bool:
        return run(server.dsn(), "CHECKPOINT", "SELECT invalidation_reason FROM pg_replication_slots") != [(None,)]

    wait_for(is_given_up, "the server gave it up")
    with Reading(server.dsn(), TABLES).start(position) as reading:
        assert reading.refusal().problem == "slot_lost"
        assert reasons(reading.source.status()) == ["idle_timeout"]


def test_inactive_seconds_count_from_the_readers_end_or_the_first_scrape_of_older_servers(each_database: str) -> None:
    run(each_database, *SETUP)
    with Reading(each_database, TABLES) as reading:
        reading.start()
        reading.until_copied()
        reading.until_streaming()
        status = looked(reading, lambda status: status.slot_active is True, "the slot is read")
        assert reasons(status) == ["none"]
        assert scraped(status, "slot_inactive_seconds") == 0
        left_us = time.time_ns() // 1000
        pause(reading, reading.position)
        status = looked(reading, lambda status: status.slot_active is False, "the slot is not read")
        rests_s = scraped(status, "slot_inactive_seconds")
        assert rests_s is not None
        if int(run(each_database, "SHOW server_version_num")[0][0]) // 10000 < NAMES_SINCE:
            assert status.inactive_since_us is None
            assert rests_s < 0.1, "counted from the scrape that saw it first"
        else:
            assert status.inactive_since_us is not None
            assert abs(status.inactive_since_us - left_us) < 20_000_000
            assert scraped_later(status, 3600) == pytest.approx(3600 + rests_s, abs=5)


def scraped_later(status: SourceStatus, seconds: float) -> float | None:
    """`slot_inactive_seconds` by a clock that is so far ahead."""
    registry = CollectorRegistry()
    gauges = Gauges(StoreFigures, lambda: [status], wall=lambda: time.time() + seconds)
    registry.register(GaugeCollector("cdc_merge_", Labels(Plan({}, ())), gauges))
    return registry.get_sample_value("cdc_merge_slot_inactive_seconds", {"source": "crm"})


def test_the_catalog_xmin_age_of_an_unconfirmed_slot_grows(each_database: str) -> None:
    run(each_database, *SETUP)
    with Reading(each_database, TABLES, confirming=False).start() as reading:
        reading.until_copied()
        reading.until_streaming()
        first = looked(reading, lambda status: status.catalog_xmin_age is not None, "the slot was looked at")
        run(each_database, *["SELECT txid_current()"] * 40)
        second = looked(
            reading,
            lambda status: (status.catalog_xmin_age or 0) >= (first.catalog_xmin_age or 0) + 40,
            "its age has grown",
        )
        assert scraped(second, "slot_catalog_xmin_age") == second.catalog_xmin_age


def test_bytes_that_a_server_spills_to_decode_a_large_transaction_are_reported(each_database: str) -> None:
    database = each_database.partition("dbname=")[2].partition(" ")[0]
    run(each_database, *SETUP, f"ALTER DATABASE {database} SET logical_decoding_work_mem = '64kB'")
    with Reading(each_database, TABLES).start() as reading:
        reading.until_copied()
        reading.until_streaming()
        before = looked(reading, lambda status: status.server_spilled_bytes is not None, "the slot was looked at")
        assert scraped(before, "spill_bytes", where="server") == 0
        run(each_database, "INSERT INTO customer SELECT n, repeat('x', 200) FROM generate_series(1, 5000) n")
        after = looked(reading, lambda status: (status.server_spilled_bytes or 0) > 500_000, "it was written aside")
        assert scraped(after, "spill_bytes", where="server") == after.server_spilled_bytes


def test_the_time_of_the_last_transaction_is_reported_and_an_idle_server_keeps_it(each_database: str) -> None:
    run(each_database, *SETUP)
    with Reading(each_database, TABLES).start() as reading:
        reading.until_copied()
        reading.until_streaming()
        assert scraped(reading.source.status(), "source_last_received_timestamp_seconds") is None
        before_s = time.time()
        run(each_database, "INSERT INTO customer VALUES (1, 'a')")
        reading.until(lambda: reading.streamed, "the row came")
        status = reading.source.status()
        came_s = scraped(status, "source_last_received_timestamp_seconds")
        assert came_s is not None
        assert before_s <= came_s <= time.time()
        heard_us = status.last_message_us or 0
        later = looked(reading, lambda status: (status.last_message_us or 0) > heard_us, "the server sent more")
        assert scraped(later, "source_last_received_timestamp_seconds") == came_s
