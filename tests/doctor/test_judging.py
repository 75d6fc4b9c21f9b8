"""Judging is pure: what no server of ours can be made to show is shown to the judge as facts."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from cdc_merge.demo.servers import DemoServer
from cdc_merge.doctor.check_list import ALL_CHECKS, run_checks
from cdc_merge.doctor.naming import identifier, literal, qualified
from cdc_merge.doctor.source_facts import (
    CapacityFacts,
    Facts,
    FactUnavailable,
    LoginProcess,
    ServerFacts,
    Setting,
    TableFacts,
)
from tests.doctor.patient import Patient
from tests.support.databases import fresh_database


@pytest.fixture
def facts(patient: Patient) -> Facts:
    """The facts of a healthy source, to be changed one by one."""
    return patient.facts()


def severities(code: str, facts: Facts) -> list[str]:
    return [check.severity for check in run_checks(facts) if check.code == code]


def server(facts: Facts, **changes: Any) -> Facts:
    return facts.also({ServerFacts: (facts.one(ServerFacts)._replace(**changes),)})


def setting(facts: Facts, name: str, value: str, number: float | None = None) -> Facts:
    others = [known for known in facts.rows(Setting) if known.name != name]
    return facts.also({Setting: (*others, Setting(name, value, None, False, number))})


def test_versions_are_judged_by_what_they_can_send_and_how_long_they_are_maintained(facts: Facts) -> None:
    assert severities("SRV01", server(facts, version=130012)) == ["fail"]
    assert severities("SRV01", server(facts, version=140012, now_us=1_900_000_000_000_000)) == ["warn"]
    assert severities("SRV01", server(facts, version=180001)) == ["ok"]


def test_from_19_on_replica_is_enough(facts: Facts) -> None:
    assert severities("SRV02", server(facts, version=180001, wal_level="replica")) == ["fail"]
    assert severities("SRV02", server(facts, version=190000, wal_level="replica")) == ["ok"]
    assert severities("SRV02", server(facts, version=190000, wal_level="replica", effective_wal_level="minimal")) == [
        "fail"
    ]


@pytest.mark.parametrize("platform", ["rds", "cloudsql", "alloydb", "azure"])
def test_on_a_platform_the_fix_is_the_platforms_own(facts: Facts, platform: str) -> None:
    (check,) = (c for c in run_checks(server(facts, wal_level="replica", platform=platform)) if c.code == "SRV02")
    assert all(statement.startswith("--") for statement in check.fix.sql)


def test_a_standby_is_read_only_from_16_on_and_only_if_its_primary_keeps_what_we_need(facts: Facts) -> None:
    assert severities("SRV04", server(facts, standby=True, version=150000)) == ["fail"]
    standby = server(facts, standby=True)
    assert severities("SRV04", standby) == ["fail", "warn"]
    ready = setting(setting(standby, "hot_standby_feedback", "on"), "primary_slot_name", "standby1")
    assert severities("SRV04", ready) == ["ok"]


def test_a_pooler_shows_in_the_process_that_answers(facts: Facts) -> None:
    assert severities("SRV08", facts.also({LoginProcess: (LoginProcess(1),)})) == ["fail"]


def test_a_sidecar_that_commits_could_wait_for_is_reported(facts: Facts) -> None:
    for names in ("*", "FIRST 1 (standby1, *)", 'ANY 1 ("cdc_merge/crm")'):
        assert severities("CAP11", setting(facts, "synchronous_standby_names", names)) == ["warn"]
    assert severities("CAP11", setting(facts, "synchronous_standby_names", "FIRST 1 (standby1)")) == ["ok"]


def test_the_wal_budget_is_compared_with_the_longest_outage(facts: Facts) -> None:
    busy = facts.also({CapacityFacts: (facts.one(CapacityFacts)._replace(wal_bytes_per_s=1e6),)})
    for bytes_kept, severity in ((0, "fail"), (1e9, "warn"), (1e12, "ok"), (-1, "warn")):
        assert severities("CAP04", setting(busy, "max_slot_wal_keep_size", "…", bytes_kept)) == [severity]


def test_large_transactions_on_the_servers_disk_are_reported_with_more_memory_as_the_fix(facts: Facts) -> None:
    room = facts.one(CapacityFacts)._replace(decoded_bytes=100, spill_bytes=50)
    (check,) = (c for c in run_checks(facts.also({CapacityFacts: (room,)})) if c.code == "CAP09")
    assert (check.severity, "logical_decoding_work_mem" in check.fix.sql[0]) == ("warn", True)


def test_what_the_server_does_not_show_is_unknown_in_every_check_that_needs_it(facts: Facts) -> None:
    hidden = facts.also({TableFacts: FactUnavailable("Nobody tells.")})
    unknown = {check.code for check in run_checks(hidden) if check.severity == "unknown"}
    assert {"TAB01", "PUB06", "PUB07", "PUB04", "ROL05", "ROL06"} <= unknown
    nothing = Facts(facts.subject, {})
    severities = {check.code: check.severity for check in run_checks(nothing)}
    assert {code for code, severity in severities.items() if severity == "ok"} <= {"SRC01", "POS01", "POS02", "POS05"}


def test_codes_are_reported_once_and_every_check_says_why_it_matters() -> None:
    codes = [kind.code for kind in ALL_CHECKS]
    assert len(set(codes)) == len(codes)
    assert all(kind.title and kind.why.endswith(".") for kind in ALL_CHECKS)


def test_databases_in_other_encodings_are_reported(clinic: DemoServer, patient: Patient) -> None:
    for encoding, severity in (("SQL_ASCII", "fail"), ("LATIN1", "warn")):
        with fresh_database(clinic) as dsn:
            name = dsn.partition("dbname=")[2].partition(" ")[0]
            with psycopg.connect(clinic.dsn(), autocommit=True) as connection:
                connection.execute(f"DROP DATABASE {name}".encode())
                options = f"ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
                connection.execute(f"CREATE DATABASE {name} {options}".encode())
            elsewhere = Patient(clinic, dsn, patient.role)
            assert elsewhere.severities("SRV05") == {"": severity}


def test_an_origin_or_a_subscription_brings_foreign_commit_times(patient: Patient) -> None:
    assert patient.severities("SRV10") == {"": "ok"}
    patient.sql("SELECT pg_replication_origin_create('elsewhere')")
    try:
        assert patient.severities("SRV10") == {"": "warn"}
    finally:
        patient.sql("SELECT pg_replication_origin_drop('elsewhere')")
    assert patient.severities("SRV10") == {"": "ok"}


def test_names_are_written_as_postgres_writes_them(patient: Patient) -> None:
    for name in ("plain", "Mixed", "user", "with space", 'quo"te', "中文", "1st", "table", "_x9"):
        ((quoted,),) = patient.sql(f"SELECT quote_ident({literal(name)})")
        assert identifier(name) == quoted
    assert qualified("app.Odd") == 'app."Odd"'
    assert qualified("public.order.items") == 'public."order.items"'
    assert qualified("my.app.client", {"my.app.client": "my.app"}) == '"my.app".client'
    assert patient.sql("SELECT " + literal("it's \\ here")) == [("it's \\ here",)]
