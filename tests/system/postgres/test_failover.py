"""A primary dies and its standby is promoted: with a failover slot the stream goes on without a gap, without one it stops by
name; the doctor says beforehand which of the two it will be.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from cdc_merge.demo.binaries import account
from cdc_merge.demo.servers import DemoServer, start_server
from cdc_merge.doctor.check_list import run_checks
from cdc_merge.doctor.collect import collect_facts
from cdc_merge.doctor.source_facts import Subject
from cdc_merge.errors import SourceRefused
from cdc_merge.sources.postgres.replication_connection import WalSender
from tests.support.databases import skip_unless_installed
from tests.system.postgres.customer_table import SETUP, TABLES, in_the_database
from tests.system.postgres.reading import Reading, run, wait_for, wal_lsn

PHYSICAL = "standby_a"
SYNCED = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{}' AND synced AND NOT temporary"


class Pair(NamedTuple):
    """A primary and its standby; `dsn` names both, and finds whichever is the primary."""

    primary: DemoServer
    standby: DemoServer
    dsn: str

    def fail_over(self) -> None:
        self.primary.kill()
        run(self.standby.dsn(), "SELECT pg_promote()")
        wait_for(
            lambda: run(self.standby.dsn(), "SELECT pg_is_in_recovery()") == [(False,)], "the standby was promoted"
        )


@pytest.fixture(params=["18", "17"])
def pair(request: pytest.FixtureRequest, new_server: Callable[..., DemoServer]) -> Iterator[Pair]:
    version: str = request.param
    skip_unless_installed(version)
    primary = new_server(version=version)
    directory = primary.directory.parent / "standby"
    run(primary.dsn(), f"SELECT pg_create_physical_replication_slot('{PHYSICAL}', true)", *SETUP)
    _copied(primary, directory)
    with ExitStack() as stack:
        standby = stack.enter_context(start_server(directory, settings={"fsync": "off"}, version=version))
        follows = f"ALTER SYSTEM SET synchronized_standby_slots = '{PHYSICAL}'"
        run(primary.dsn(), follows, "SELECT pg_reload_conf()")
        hosts = f"{primary.socket_directory},{standby.socket_directory}"
        ports = f"{primary.port},{standby.port}"
        yield Pair(
            primary, standby, f"host={hosts} port={ports} dbname=postgres user=postgres target_session_attrs=read-write"
        )


def _copied(primary: DemoServer, directory: Path) -> None:
    """The primary's data as a standby of it, with everything that a synchronised slot needs."""
    who = account()
    directory.mkdir()
    if who.uid is not None and who.gid is not None:
        os.chown(directory, who.uid, who.gid)
    command = [
        str(primary.bin / "pg_basebackup"),
        "-D",
        str(directory / "data"),
        "-d",
        primary.dsn(),
        "-R",
        "-S",
        PHYSICAL,
    ]
    subprocess.run(
        [*command, "-X", "stream", "-c", "fast"], check=True, user=who.uid, group=who.gid, capture_output=True
    )
    with (directory / "data" / "postgresql.auto.conf").open("a", encoding="utf-8") as settings:
        settings.write(
            f"primary_conninfo = '{primary.dsn()}'\nsync_replication_slots = on\nhot_standby_feedback = on\n"
        )


def severities(pair: Pair, code: str, slot: str, *, failover: bool = True) -> dict[str, str]:
    subject = Subject("crm", slot, "cdc_merge", tables=TABLES, failover=failover)
    facts = collect_facts(subject, pair.dsn, lambda: time.time_ns() // 1000)
    return {check.about: check.severity for check in run_checks(facts) if check.code == code}


def test_with_a_failover_slot_the_stream_resumes_at_the_promoted_standby(pair: Pair) -> None:
    with Reading(pair.dsn, TABLES, failover=True, slot="ours").start() as reading:
        reading.until_copied()
        reading.until_streaming()
        run(pair.primary.dsn(), *(f"INSERT INTO customer VALUES ({n}, 'before', 0)" for n in range(50)))
        wait_for(
            lambda: run(pair.standby.dsn(), SYNCED.format("ours")) == [(1,)] or _quicken(pair, reading),
            "it is synced",
            60,
        )
        assert severities(pair, "SLT08", "ours") == {"": "ok"}
        assert severities(pair, "FOV01", "ours") == {"": "ok"}
        assert severities(pair, "FOV02", "ours") == {str(pair.standby.socket_directory): "ok"}
        run(pair.primary.dsn(), *(f"INSERT INTO customer VALUES ({n}, 'late', 0)" for n in range(50, 80)))
        reading.until(lambda: len(reading.table()) >= 60, "some of it came")
        pair.fail_over()
        run(pair.standby.dsn(), *(f"INSERT INTO customer VALUES ({n}, 'after', 0)" for n in range(100, 150)))
        reading.until_passed(wal_lsn(pair.standby.dsn()), limit_s=60)
        assert reading.table() == in_the_database(pair.standby.dsn())
        assert {"before", "late", "after"} == {
            row[1] for row in run(pair.standby.dsn(), "SELECT id, name FROM customer")
        }
        assert reading.source.status().reconnects >= 1
        assert {transaction.timeline for transaction in reading.transactions} == {1, 2}


def _quicken(pair: Pair, reading: Reading) -> bool:
    """A slot is persisted at a standby when a running-xacts record has passed; the server writes one only now and then."""
    run(pair.primary.dsn(), "SELECT pg_log_standby_snapshot()")
    reading.take()
    return False


def test_without_a_failover_slot_the_source_stops_after_the_failover(pair: Pair) -> None:
    with Reading(pair.dsn, TABLES, slot="ours").start() as reading:
        reading.until_copied()
        reading.until_streaming()
        run(pair.primary.dsn(), "INSERT INTO customer VALUES (1, 'before', 0)")
        reading.until(lambda: reading.streamed, "the row came")
        assert severities(pair, "SLT08", "ours") == {"": "fail"}
        assert severities(pair, "SLT08", "ours", failover=False) == {"": "warn"}
        lsn = wal_lsn(pair.primary.dsn())
        wait_for(
            lambda: run(pair.standby.dsn(), f"SELECT pg_last_wal_replay_lsn() - '0/0' >= {lsn}") == [(True,)],
            "it has all",
        )
        pair.fail_over()
        wait_for(
            lambda: reading.take() and False or reading.source.status().state == "stopped", "the source stopped", 60
        )
        assert reading.refusal().problem == "slot_missing"


def test_a_standby_that_is_not_prepared_is_reported_with_its_fix(pair: Pair) -> None:
    run(pair.primary.dsn(), "SELECT pg_create_logical_replication_slot('ours', 'pgoutput', false, false, true)")
    standby, about = pair.standby.dsn(), str(pair.standby.socket_directory)
    run(standby, "ALTER SYSTEM SET sync_replication_slots = off", "SELECT pg_reload_conf()")
    wait_for(lambda: run(standby, "SHOW sync_replication_slots") == [("off",)], "it is off")
    assert severities(pair, "FOV02", "ours") == {about: "fail"}
    subject = Subject("crm", "ours", "cdc_merge", tables=TABLES, failover=True)
    (check,) = [
        c for c in run_checks(collect_facts(subject, pair.dsn, lambda: time.time_ns() // 1000)) if c.code == "FOV02"
    ]
    run(standby, *(sql for sql in check.fix.sql if not sql.startswith("--")))
    wait_for(
        lambda: (
            run(pair.primary.dsn(), "SELECT pg_log_standby_snapshot()")
            and severities(pair, "FOV02", "ours") == {about: "ok"}
        ),
        "the slot is there",
        60,
    )


def test_a_server_before_17_refuses_a_failover_slot(database_15: str) -> None:
    sender = WalSender("crm", database_15)
    try:
        with pytest.raises(SourceRefused, match="not synchronized to standbys") as refused:
            sender.create_slot("ours", 5.0, lambda: False, failover=True)
        assert refused.value.problem == "configuration"
    finally:
        sender.close()


@pytest.fixture
def database_15(new_server: Callable[..., DemoServer]) -> str:
    skip_unless_installed("15")
    return new_server(version="15").dsn()
