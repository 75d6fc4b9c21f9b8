"""The doctor beside the sidecar: a metric per check, whatever happens to the sources."""

from __future__ import annotations

import logging
import time

import pytest
from prometheus_client import CollectorRegistry

from cdc_merge.doctor.background import DoctorCollector, Rounds
from cdc_merge.doctor.check_list import ALL_CHECKS, run_checks
from cdc_merge.doctor.findings import CheckResult
from cdc_merge.doctor.preflight import Doctor
from cdc_merge.doctor.source_facts import CapacityFacts, Facts, SlotFacts
from tests.doctor.patient import Patient
from tests.system.postgres.reading import wait_for


class Clock:
    """Our own clock, which a test may put forward."""

    def __init__(self) -> None:
        self.ahead_us = 0

    def __call__(self) -> int:
        return time.time_ns() // 1000 + self.ahead_us


def rounds_of(patient: Patient, clock: Clock, period_s: float = 60.0) -> tuple[Rounds, CollectorRegistry]:
    doctor = Doctor(lambda: {}, clock, probing=False)
    rounds = Rounds(doctor, lambda: [(patient.subject(), patient.own_dsn)], period_s)
    registry = CollectorRegistry()
    registry.register(DoctorCollector(rounds))
    return rounds, registry


def status(registry: CollectorRegistry, check: str) -> float | None:
    return registry.get_sample_value("cdc_merge_doctor_check_status", {"source": "crm", "check": check})


def test_every_read_only_check_has_a_sample_and_the_worst_counts(patient: Patient) -> None:
    rounds, registry = rounds_of(patient, Clock())
    assert status(registry, "TAB01") is None
    rounds.round()
    active = {"SLT11", "SLT12", "TAB07"}
    assert {kind.code for kind in ALL_CHECKS if status(registry, kind.code) is None} == active
    patient.sql("ALTER TABLE app.customer REPLICA IDENTITY NOTHING", "REVOKE pg_read_all_stats FROM {role}")
    rounds.round()
    assert [status(registry, code) for code in ("SRV02", "ROL10", "TAB01", "SLT10")] == [0, 1, 2, 3]


def test_rounds_come_by_themselves_and_end_when_stopped(patient: Patient) -> None:
    rounds, registry = rounds_of(patient, Clock(), period_s=0.05)
    rounds.start()
    wait_for(lambda: status(registry, "SRV02") == 0, "a round was made")
    rounds.stop()
    ended = registry.get_sample_value("cdc_merge_doctor_last_round_timestamp_seconds")
    assert ended is not None
    assert abs(ended - time.time()) < 60


def test_a_source_that_is_away_is_one_bad_check_and_its_others_say_nothing(
    patient: Patient, caplog: pytest.LogCaptureFixture
) -> None:
    away = patient.own_dsn.replace(f"dbname={patient.database}", "dbname=nowhere")
    rounds = Rounds(Doctor(lambda: {}, Clock(), probing=False), lambda: [(patient.subject(), away)])
    registry = CollectorRegistry()
    registry.register(DoctorCollector(rounds))
    with caplog.at_level(logging.WARNING, "cdc_merge.doctor"):
        rounds.round()
        rounds.round()
    assert status(registry, "SRC01") == 2
    assert status(registry, "SRV02") is None
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["crm SRC01"]


def test_a_round_that_breaks_leaves_the_last_answers(patient: Patient) -> None:
    rounds, registry = rounds_of(patient, Clock())
    rounds.round()
    broken = Rounds(Doctor(lambda: {}, Clock(), probing=False), lambda: 1 // 0)  # type: ignore[arg-type,return-value] # a mistake
    broken.checks = rounds.checks
    broken.round()
    assert broken.checks == rounds.checks


def test_the_rate_of_wal_is_that_of_the_last_minute(patient: Patient) -> None:
    clock = Clock()
    doctor = Doctor(lambda: {}, clock, probing=False)
    patient.sql("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")
    doctor.examine([(patient.subject(), patient.own_dsn)])
    patient.sql("INSERT INTO app.customer SELECT i::text, repeat('x', 500) FROM generate_series(1000, 3000) i")
    clock.ahead_us = 60_000_000
    results = [c for c in doctor.examine([(patient.subject(), patient.own_dsn)]).checks if c.code == "CAP07"]
    assert "a second" in results[0].seen


def with_slot(facts: Facts, **changes: object) -> Facts:
    slot = facts.our_slot()
    assert slot is not None
    return facts.also({SlotFacts: (slot._replace(**changes),)})  # type: ignore[arg-type] # a test's keywords


def test_the_time_to_invalidation_is_reported_before_it_is_over(patient: Patient) -> None:
    patient.sql("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")
    facts = patient.facts()
    room = facts.one(CapacityFacts)._replace(wal_bytes_per_s=1e6)
    for safe_bytes, severity in ((1 << 40, "ok"), (8 * 10**9, "warn"), (10**9, "fail"), (-5, "fail")):
        known = with_slot(facts, safe_bytes=safe_bytes).also({CapacityFacts: (room,)})
        assert of("CAP07", known)[0].severity == severity
    assert of("CAP07", with_slot(facts, safe_bytes=1).also({CapacityFacts: (room._replace(wal_bytes_per_s=None),)}))[
        0
    ].severity == ("unknown")
    for wal_status, severity in (("reserved", "ok"), ("extended", "warn"), ("unreserved", "fail"), ("lost", "fail")):
        assert of("SLT03", with_slot(facts, wal_status=wal_status))[0].severity == severity


def of(code: str, facts: Facts) -> list[CheckResult]:
    return [check for check in run_checks(facts) if check.code == code]
