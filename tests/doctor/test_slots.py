# ruff: noqa: E501 - SQL on one line
"""Slots: ours, others', lost ones; the position on disk against them; and the path walked with a temporary one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from cdc_merge.demo.servers import DemoServer, start_server
from cdc_merge.doctor import probe
from cdc_merge.doctor.check_list import run_checks_across
from tests.doctor.patient import Patient, admitted
from tests.doctor.slot_readers import CREATE, read_by
from tests.support.databases import NO_FSYNC
from tests.system.postgres.reading import Reading, wait_for

DROP = "SELECT pg_drop_replication_slot('{slot}')"


def slots_of(patient: Patient) -> int:
    return int(patient.sql("SELECT count(*) FROM pg_replication_slots")[0][0])


# ---------------------------------------------------------------- our slot


def test_without_a_initial_snapshot_a_missing_slot_is_reported_and_created_by_its_fix(either: Patient) -> None:
    assert either.severities("SLT01") == {"": "ok"}
    either.wanted["snapshot"] = "never"
    results = either.checks("SLT01")
    assert [check.severity for check in results] == ["fail"]
    either.apply_fix(results[0])
    assert either.severities("SLT01") == {"": "ok"}


def test_a_slot_that_vanished_behind_our_position_is_no_fresh_start(patient: Patient) -> None:
    patient.wanted["position"] = patient.position()
    assert patient.severities("SLT01") == {"": "fail"}


def test_a_slot_of_another_plugin_is_not_ours(patient: Patient) -> None:
    patient.sql("SELECT pg_create_logical_replication_slot('{slot}', 'test_decoding')")
    assert patient.severities("SLT01") == {"": "fail"}


def test_another_client_that_reads_our_slot_is_named(patient: Patient) -> None:
    patient.sql(CREATE)
    with read_by(patient, patient.role, "thief"):
        results = patient.checks("SLT02")
        assert [check.severity for check in results] == ["fail"]
        assert "thief" in results[0].seen
        patient.apply_fix(results[0], deciding=True)
    wait_until_free(patient)
    assert patient.severities("SLT02") == {"": "ok"}


def test_a_reader_that_the_role_may_not_see_is_unknown_and_never_ok(patient: Patient) -> None:
    patient.sql(CREATE, "REVOKE pg_read_all_stats FROM {role}")
    with read_by(patient, "postgres", "cdc_merge/crm"):
        results = patient.checks("SLT02")
        assert [check.severity for check in results] == ["unknown"]
        patient.apply_fix(results[0])
        assert patient.severities("SLT02") == {"": "ok"}
    wait_until_free(patient)


def wait_until_free(patient: Patient) -> None:
    wait_for(
        lambda: patient.sql("SELECT 1 FROM pg_replication_slots WHERE slot_name = '{slot}' AND NOT active"),
        "it is free",
    )


def test_a_slot_left_alone_is_reported_once_it_is_long_enough(patient: Patient) -> None:
    patient.sql(CREATE)
    assert patient.severities("SLT05") == {"": "ok"}
    patient.limits(inactive_s=0.0)
    results = patient.checks("SLT05")
    assert [check.severity for check in results] == ["warn"]
    patient.apply_fix(results[0], deciding=True)
    assert patient.severities("SLT05") == {"": "ok"}
    assert slots_of(patient) == 0


def test_before_17_it_is_unknown_since_when_a_slot_is_inactive(old_patient: Patient) -> None:
    old_patient.sql(CREATE)
    assert old_patient.severities("SLT05") == {"": "unknown"}


def test_wal_kept_without_a_reader_and_rows_kept_from_vacuum_are_reported(patient: Patient) -> None:
    patient.sql(CREATE)
    patient.sql(*["INSERT INTO app.customer SELECT i::text, repeat('x', 500) FROM generate_series(10, 400) i"])
    patient.sql("CREATE TABLE app.other (id int)", "CREATE TABLE app.third (id int)")
    assert patient.severities("SLT06") == {"": "ok"}
    assert patient.severities("SLT07") == {"": "ok"}
    patient.limits(retained_bytes=1000, xid_age=2)
    assert patient.severities("SLT06") == {"": "warn"}
    assert patient.severities("SLT07") == {"": "warn"}
    patient.limits(retained_bytes=1000, xid_age=0)
    assert patient.severities("SLT07") == {"": "fail"}


def test_an_abandoned_slot_of_others_is_named_and_never_dropped_without_a_decision(patient: Patient) -> None:
    patient.limits(abandoned_bytes=0)
    patient.sql(
        "SELECT pg_create_logical_replication_slot('theirs', 'test_decoding')",
        "INSERT INTO app.customer VALUES ('C3', 'x')",
    )
    results = patient.checks("SLT09")
    assert [(check.severity, check.about) for check in results] == [("warn", "theirs")]
    assert all(statement.startswith("--") for statement in results[0].fix.sql)
    patient.apply_fix(results[0], deciding=True)
    assert patient.severities("SLT09") == {"": "ok"}


def test_a_slot_that_no_standby_would_get_is_reported(patient: Patient) -> None:
    patient.sql(CREATE, "SELECT pg_create_physical_replication_slot('standby1', true)")
    try:
        results = patient.checks("SLT08")
        assert [check.severity for check in results] == ["warn"]
        command = results[0].fix.sql[0].partition(": ")[2].removesuffix(";")
        with psycopg.connect(patient.dsn, replication="database", autocommit=True) as connection:
            connection.execute(command.encode())
        assert patient.severities("SLT08") == {"": "ok"}
        ahead = patient.checks("FOV01")
        assert [check.severity for check in ahead] == ["warn"]
        patient.apply_fix(ahead[0])
        assert patient.severities("FOV01") == {"standby1": "warn"}
    finally:
        patient.sql("ALTER SYSTEM RESET synchronized_standby_slots", "SELECT pg_reload_conf()")
        patient.sql(DROP, "SELECT pg_drop_replication_slot('standby1')")


def test_a_lost_slot_is_reported_and_dropping_it_is_the_fix(either: Patient) -> None:
    either.sql(CREATE, "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'", "SELECT pg_reload_conf()")
    try:
        for _ in range(3):
            either.sql("INSERT INTO app.customer SELECT gen_random_uuid(), 'x'", "SELECT pg_switch_wal()", "CHECKPOINT")
    finally:
        either.sql(f"ALTER SYSTEM SET max_slot_wal_keep_size = '{10}GB'", "SELECT pg_reload_conf()")
    assert either.severities("SLT03") == {"": "fail"}
    if either.server.directory.name == "clinic":
        assert either.severities("SLT04") == {"": "fail"}
    either.apply_fix(either.checks("SLT03")[0])
    assert either.severities("SLT03") == {"": "ok"}
    assert either.severities("SLT04") == {"": "ok"}


def test_an_open_transaction_is_named_with_its_end_and_hidden_ones_are_unknown(patient: Patient) -> None:
    patient.limits(blocker_s=0.0)
    with psycopg.connect(patient.dsn) as blocker:
        blocker.execute("INSERT INTO app.customer VALUES ('C4', 'x')")
        results = patient.checks("SLT10")
        assert [check.severity for check in results] == ["warn"]
        assert str(blocker.info.backend_pid) in results[0].about
        patient.sql("REVOKE pg_read_all_stats FROM {role}")
        assert patient.severities("SLT10") == {"": "unknown"}
        patient.apply_fix(patient.checks("SLT10")[0])
        patient.apply_fix(results[0], deciding=True)
        blocker.close()
    assert patient.severities("SLT10") == {"": "ok"}


# ---------------------------------------------------------------- positions


def test_positions_that_cannot_be_continued_have_a_code_each(patient: Patient) -> None:
    patient.sql(CREATE)
    here = patient.position()
    wrong = {
        "POS01": here._replace(system="1"),
        "POS02": here._replace(timeline=7),
        "POS03": here._replace(lsn=1),
        "POS05": here._replace(lsn=here.lsn + (1 << 40)),
    }
    for code, position in wrong.items():
        patient.wanted["position"] = position
        assert patient.severities(code) == {"": "fail"}, code
        patient.wanted["position"] = here
        assert patient.severities(code) == {"": "ok"}, code


def test_a_store_that_cannot_be_queried_leaves_positions_unknown(patient: Patient) -> None:
    patient.wanted["position_is_known"] = False
    assert patient.severities("POS01") == {"": "unknown"}


def test_a_clock_that_disagrees_is_reported_with_its_error(patient: Patient) -> None:
    assert patient.severities("SRV07") == {"": "ok"}
    results = patient.checks("SRV07", ahead_us=60_000_000)
    assert [(check.severity, "60.0" in check.seen) for check in results] == [("warn", True)]


def test_keys_of_different_types_are_reported_at_every_source(patient: Patient, another: Callable[[], Patient]) -> None:
    other = another()
    assert {check.severity for check in run_checks_across([patient.facts(), other.facts()])} == {"ok"}
    other.sql("ALTER TABLE app.customer ADD number int")
    other.wanted["keys"] = {"customer": ("app.customer", ("number",))}
    results = run_checks_across([patient.facts(), other.facts()])
    assert [(check.code, check.severity, check.about) for check in results] == [("TAB07", "warn", "customer")] * 2
    other.sql("ALTER TABLE app.customer ADD at timestamp")
    other.wanted["keys"] = {"customer": ("app.customer", ("at",))}
    results = run_checks_across([patient.facts(), other.facts()])
    assert [(check.code, check.severity, check.about) for check in results] == [("TAB07", "fail", "customer")] * 2


# ---------------------------------------------------------------- the path


def test_the_probe_walks_the_whole_path_and_leaves_nothing_behind(either: Patient) -> None:
    before = slots_of(either)
    assert either.severities("SLT11", probing=True) == {"": "ok"}
    assert slots_of(either) == before
    wait_for(lambda: not either.sql("SELECT 1 FROM pg_stat_replication"), "its session has ended")


def test_the_probe_gives_up_in_time_when_a_transaction_blocks_it(patient: Patient) -> None:
    facts = patient.facts()
    with psycopg.connect(patient.dsn) as blocker:
        blocker.execute("INSERT INTO app.customer VALUES ('C5', 'x')")
        found = probe.probe_path(patient.subject(), patient.own_dsn, facts, limit_s=0.5)
    assert found.step == "create"
    assert slots_of(patient) == 0


def test_the_probe_says_at_which_step_the_path_ends(patient: Patient) -> None:
    patient.sql(
        "DO $$ BEGIN EXECUTE (SELECT format('REVOKE EXECUTE ON FUNCTION %s FROM public', oid::regprocedure) FROM pg_proc"
        " WHERE proname = 'pg_logical_emit_message' AND proargtypes[2] = 'text'::regtype); END $$"
    )
    results = patient.checks("SLT11", probing=True)
    assert [(check.severity, "sending a logical message" in check.seen) for check in results] == [("fail", True)]
    assert slots_of(patient) == 0


def test_a_running_sidecar_is_proved_by_what_it_confirms(patient: Patient) -> None:
    stopping = threading.Event()
    tables = {"app.customer": ("no", "name")}
    with Reading(patient.own_dsn, tables, slot=patient.slot) as reading:
        reading.start()
        reading.until_streaming()

        def work() -> None:
            while not stopping.wait(0.02):
                reading.take()

        worker = threading.Thread(target=work)
        worker.start()
        try:
            assert patient.severities("SLT12", probing=True) == {"": "ok"}
        finally:
            stopping.set()
            worker.join()
        stuck = probe.probe_sidecar(patient.subject(), patient.own_dsn, limit_s=1.0)
        assert stuck == (False, 1.0)


# ---------------------------------------------------------------- a server that is not ready


@pytest.fixture(scope="module")
def poor(server_directory: Path) -> Iterator[DemoServer]:
    """Small limits and no logical WAL."""
    small = {
        "wal_level": "replica",
        "max_replication_slots": "1",
        "max_wal_senders": "1",
        "max_slot_wal_keep_size": "-1",
    }
    with start_server(server_directory / "poor", settings={**NO_FSYNC, **small}) as server:
        yield server


def test_a_server_that_is_not_ready_is_made_ready_by_what_is_printed(poor: DemoServer) -> None:
    with admitted(poor) as patient:
        patient.sql(
            "SELECT pg_create_physical_replication_slot('standby1', true)",
            "ALTER SYSTEM SET idle_replication_slot_timeout = '1h'",
            "SELECT pg_reload_conf()",
        )
        codes = {"SRV02": "fail", "CAP01": "fail", "CAP02": "warn", "CAP04": "warn", "CAP05": "warn"}
        for code, severity in codes.items():
            results = patient.checks(code)
            assert [check.severity for check in results] == [severity], code
            patient.apply_fix(results[0])
        assert patient.severities("SLT11", probing=True) == {"": "unknown"}
        assert patient.severities("SRV03") == {"": "warn"}
        patient.sql("SELECT pg_drop_replication_slot('standby1')")
        patient.hang_up()
        poor.stop()
        poor.start()
        assert {code: patient.severities(code) for code in (*codes, "SRV03")} == dict.fromkeys(
            (*codes, "SRV03"), {"": "ok"}
        )
        assert patient.severities("SLT11", probing=True) == {"": "ok"}
