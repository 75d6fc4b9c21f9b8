"""What keeps a source from being read is said in one sentence with the next step, and never shows the DSN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from cdc_merge.demo.servers import DemoServer
from cdc_merge.errors import SourceRefused, SourceUnavailable
from cdc_merge.model import Parked, SourceChanged
from cdc_merge.model.ports import Source
from cdc_merge.sources.postgres.catalog import CatalogProblem, describe, preflight
from cdc_merge.sources.postgres.sqlstates import connect_refusal
from tests.system.postgres.reading import Reading, run, wait_for

TABLES = {"public.customer": ("id", "name")}
SETUP = ("CREATE TABLE customer (id int PRIMARY KEY, name text)", "CREATE PUBLICATION cdc_merge FOR TABLE customer")
SECRET = "s3cr3t-pass"


@pytest.fixture
def dsn(database: str) -> str:
    run(database, *SETUP)
    return database


def problem_of(dsn: str, **settings: Any) -> SourceChanged:
    with Reading(dsn, settings.pop("tables", TABLES), **settings).start() as reading:
        refusal = reading.refusal()
        assert refusal.hint
        assert refusal.sentence.startswith("Source crm: ")
        return refusal


def slots(dsn: str) -> int:
    return int(run(dsn, "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()")[0][0])


def test_a_missing_publication_is_refused_before_anything_is_created(database: str) -> None:
    run(database, "CREATE TABLE customer (id int PRIMARY KEY, name text)")
    assert problem_of(database).problem == "publication_missing"
    assert slots(database) == 0


def test_a_publication_dropped_while_reading_stops_the_source(dsn: str) -> None:
    with Reading(dsn, TABLES).start() as reading:
        reading.until_copied()
        reading.until_streaming()
        run(dsn, "DROP PUBLICATION cdc_merge")
        assert reading.refusal().problem == "publication_missing"


def test_a_table_taken_out_of_the_publication_while_reading_stops_the_source(dsn: str) -> None:
    with Reading(dsn, TABLES).start() as reading:
        reading.until_copied()
        reading.until_streaming()
        run(dsn, "ALTER PUBLICATION cdc_merge DROP TABLE customer")
        refusal = reading.refusal()
        assert refusal.problem == "table_missing"
        assert "public.customer" in refusal.sentence


def test_a_table_outside_the_publication_is_reported(dsn: str) -> None:
    run(dsn, "CREATE TABLE other (id int PRIMARY KEY)")
    refusal = problem_of(dsn, tables=TABLES | {"public.other": ("id",)})
    assert refusal.problem == "table_missing"
    assert "public.other is not in publication cdc_merge" in refusal.sentence
    assert slots(dsn) == 0


def test_a_table_or_column_that_does_not_exist_is_reported(dsn: str) -> None:
    assert "public.nothing does not exist" in problem_of(dsn, tables={"public.nothing": ("id",)}).sentence
    refusal = problem_of(dsn, tables={"public.customer": ("id", "nmae")})
    assert refusal.problem == "column_missing"
    assert "nmae" in refusal.sentence


def test_a_missing_slot_without_a_snapshot_is_refused(dsn: str) -> None:
    refusal = problem_of(dsn, snapshot="never")
    assert refusal.problem == "slot_missing"
    assert "create-slot" in refusal.hint
    assert slots(dsn) == 0


def test_an_existing_slot_without_a_position_is_followed_when_snapshot_is_never(dsn: str) -> None:
    with Reading(dsn, TABLES, snapshot="never") as reading:
        run(dsn, f"SELECT pg_create_logical_replication_slot('{reading.slot}', 'pgoutput')")
        run(dsn, "INSERT INTO customer VALUES (1, 'a')")
        reading.start()
        reading.until(lambda: reading.streamed, "the row came")
        assert reading.copied == []


def test_a_slot_of_another_plugin_is_neither_read_nor_dropped(dsn: str) -> None:
    run(dsn, "SELECT pg_create_logical_replication_slot('theirs', 'test_decoding')")
    refusal = problem_of(dsn, slot="theirs")
    assert refusal.problem == "configuration"
    assert slots(dsn) == 1


def test_a_server_without_logical_wal_is_refused(new_server: Callable[..., DemoServer]) -> None:
    server = new_server(settings={"wal_level": "replica"})
    run(server.dsn(), "CREATE TABLE customer (id int PRIMARY KEY, name text)")
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.add_notice_handler(lambda notice: None)
        connection.execute("CREATE PUBLICATION cdc_merge FOR TABLE customer")
    refusal = problem_of(server.dsn())
    assert refusal.problem == "wal_level"
    assert "restart" in refusal.hint


@pytest.fixture(scope="module")
def password_server(request: pytest.FixtureRequest, server_directory: Any) -> Any:
    """A server on loopback that requires passwords."""
    from cdc_merge.demo.servers import start_server

    with start_server(server_directory / "passwords", settings={"listen_addresses": "127.0.0.1"}) as server:
        rules = (server.data / "pg_hba.conf").read_text()
        (server.data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n" + rules)
        run(
            server.dsn(),
            "SELECT pg_reload_conf()",
            f"CREATE ROLE reader LOGIN REPLICATION PASSWORD '{SECRET}'",
            f"CREATE ROLE plain LOGIN PASSWORD '{SECRET}'",
            *SETUP,
            "GRANT SELECT ON customer TO reader, plain",
        )
        yield server


def over_tcp(server: DemoServer, user: str, password: str, database: str = "postgres") -> str:
    return f"postgresql://{user}:{password}@127.0.0.1:{server.port}/{database}"


REFUSED_LOGINS = [
    ("reader", "wrong", "postgres", "authentication"),
    ("nobody", SECRET, "postgres", "authentication"),
    ("reader", SECRET, "nowhere", "database_missing"),
    ("plain", SECRET, "postgres", "not_permitted"),
]


@pytest.mark.parametrize(("user", "password", "database", "problem"), REFUSED_LOGINS)
def test_a_failed_login_is_refused_as_authentication_and_shows_no_secret(
    password_server: DemoServer, user: str, password: str, database: str, problem: str
) -> None:
    refusal = problem_of(over_tcp(password_server, user, password, database), slot="s")
    assert refusal.problem == problem
    assert password not in refusal.sentence + refusal.hint


def test_a_bare_replication_role_with_select_can_read(password_server: DemoServer) -> None:
    with Reading(over_tcp(password_server, "reader", SECRET), TABLES, slot="bare").start() as reading:
        reading.until_copied()
        run(password_server.dsn(), "INSERT INTO customer VALUES (1, 'a')")
        reading.until(lambda: reading.streamed, "the row came")
        assert reading.source.status().retained_bytes is not None


def test_a_role_that_may_not_select_is_refused_before_a_slot_exists(password_server: DemoServer) -> None:
    dsn = password_server.dsn()
    run(dsn, "CREATE TABLE hidden (id int PRIMARY KEY)", "ALTER PUBLICATION cdc_merge ADD TABLE hidden")
    tables = {"public.hidden": ("id",)}
    refusal = problem_of(over_tcp(password_server, "reader", SECRET), tables=tables, slot="hidden")
    assert refusal.problem == "not_permitted"
    assert "GRANT SELECT ON public.hidden" in refusal.hint
    assert run(dsn, "SELECT 1 FROM pg_replication_slots WHERE slot_name = 'hidden'") == []
    run(dsn, "DROP TABLE hidden")


def test_row_security_fails_the_initial_snapshot_instead_of_shrinking_it(password_server: DemoServer) -> None:
    dsn = password_server.dsn()
    run(
        dsn,
        "CREATE TABLE guarded (id int PRIMARY KEY)",
        "INSERT INTO guarded VALUES (1)",
        "GRANT SELECT ON guarded TO reader",
        "ALTER TABLE guarded ENABLE ROW LEVEL SECURITY",
        "ALTER PUBLICATION cdc_merge ADD TABLE guarded",
    )
    tables = {"public.guarded": ("id",)}
    assert problem_of(over_tcp(password_server, "reader", SECRET), tables=tables, slot="g").problem == "not_permitted"
    assert run(dsn, "SELECT 1 FROM pg_replication_slots WHERE slot_name = 'g'") == []
    run(dsn, "DROP TABLE guarded")


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://u:{SECRET}@127.0.0.1:1/d",
        f"host=/nowhere user=u password={SECRET} dbname=d",
        f"postgresql://u:p@{SECRET}@127.0.0.1:1/d",
    ],
)
def test_an_unreachable_server_is_retried_and_the_password_is_never_shown(dsn: str) -> None:
    with Reading(dsn, TABLES, slot="s").start() as reading:
        wait_for(lambda: len(reading.facts) >= 2, "it was tried twice")
        status = reading.source.status()
        assert status.state == "retrying"
        assert not status.up
        assert status.problem is not None
        assert SECRET not in status.problem
        assert all(SECRET not in str(fact) for fact in reading.facts)


def test_an_invalid_dsn_is_refused_without_being_shown() -> None:
    refusal = problem_of(f"postgresql//u:{SECRET}@h", slot="s")
    assert refusal.problem == "configuration"
    assert SECRET not in refusal.sentence


def test_a_refused_source_can_be_started_after_the_fix(database: str) -> None:
    run(database, "CREATE TABLE customer (id int PRIMARY KEY, name text)")
    with Reading(database, TABLES).start() as reading:
        assert reading.refusal().problem == "publication_missing"
        run(database, "CREATE PUBLICATION cdc_merge FOR TABLE customer")
        reading.start()
        reading.until_copied()
        assert reading.source.status().problem is None


def test_a_slot_creation_that_waits_too_long_names_the_blockers_and_succeeds_after_them(dsn: str) -> None:
    with psycopg.connect(dsn) as blocker:
        blocker.execute("INSERT INTO customer VALUES (1, 'open')")
        pid = blocker.info.backend_pid
        with Reading(dsn, TABLES, slot_creation_limit_s=0.5).start() as reading:
            wait_for(lambda: reading.source.status().state == "retrying", "the slot was given up for now")
            problem = reading.source.status().problem or ""
            assert f"process {pid}" in problem
            blocker.commit()
            reading.until_copied()
            assert [(change.new or ())[0] for change in reading.copied] == [b"1"]
    assert slots(dsn) == 1


def test_stopping_while_a_slot_is_being_created_leaves_none(dsn: str) -> None:
    with psycopg.connect(dsn) as blocker:
        blocker.execute("INSERT INTO customer VALUES (1, 'open')")
        with Reading(dsn, TABLES).start() as reading:
            waiting = "SELECT 1 FROM pg_stat_activity WHERE backend_type = 'walsender' AND wait_event_type = 'Lock'"
            wait_for(lambda: run(dsn, waiting), "the slot's creation waited")
            reading.source.stop()
        wait_for(lambda: slots(dsn) == 0, "no slot was left")


def test_an_unexpected_error_stops_the_source_as_a_bug(dsn: str) -> None:
    def broken_clock() -> int:
        raise RuntimeError("a mistake")

    with Reading(dsn, TABLES, now_us=broken_clock).start() as reading:
        refusal = reading.refusal()
        assert refusal.problem == "reader_failed"
        assert "RuntimeError" in refusal.sentence


def test_taking_from_a_source_that_was_never_started_gives_nothing() -> None:
    source: Source = Reading("", {}).source
    assert source.take(10) == []
    source.confirm(5)
    source.stop()
    assert source.status().state == "stopped"


@pytest.mark.parametrize(
    ("text", "problem", "said"),
    [
        ('failed: FATAL:  password authentication failed for user "u"', "authentication", "password authentication"),
        ('failed: FATAL:  database "d" does not exist', "database_missing", '"d"'),
        ("failed: FATAL:  sorry, too many clients already", None, "too many clients"),
        ("failed: FATAL:  the database system is starting up", None, "starting up"),
        ("failed: 致命错误:  用户 u 认证失败", None, "认证失败"),
        ("failed: Connection refused\n\tIs the server running on host s3cr3t-pass?", None, "(connection refused)"),
        ('could not translate host name "s3cr3t-pass@h" to address', None, "host name is unknown"),
        ("failed to resolve host 's3cr3t-pass@h': [Errno -2] Name or service not known", None, "host name is unknown"),
        ("is bad: GSSAPI encryption required but no credential cache", "configuration", "option of its DSN"),
    ],
)
def test_a_failed_connection_is_reported_in_the_servers_words_or_in_ours(
    text: str, problem: str | None, said: str
) -> None:
    error = connect_refusal("crm", psycopg.OperationalError(f'connection to server at "h" (1.2.3.4), port 1 {text}'))
    assert said in str(error)
    assert SECRET not in str(error)
    assert (error.problem if isinstance(error, SourceRefused) else None) == problem


# ---------------------------------------------------------------- preflight


def found(dsn: str, tables: dict[str, tuple[str, ...]]) -> dict[str, CatalogProblem]:
    return {problem.problem: problem for problem in preflight(dsn, "cdc_merge", tables)}


def test_a_correct_source_has_no_problem(dsn: str) -> None:
    assert preflight(dsn, "cdc_merge", TABLES) == []


def test_preflight_finds_every_problem_at_once(dsn: str) -> None:
    run(
        dsn,
        "CREATE TABLE no_key (id int)",
        "CREATE TABLE deferred (id int PRIMARY KEY DEFERRABLE)",
        "ALTER PUBLICATION cdc_merge ADD TABLE no_key, deferred",
        "ALTER PUBLICATION cdc_merge SET (publish = 'insert, update')",
    )
    tables = {"public.customer": ("id", "gone"), "public.no_key": ("id",), "public.absent": ("id",)}
    problems = preflight(dsn, "cdc_merge", tables)
    assert [(problem.place, problem.problem) for problem in problems] == [
        ("publication cdc_merge", "unpublished_operations"),
        ("public.customer", "column_missing"),
        ("public.no_key", "no_identity"),
        ("public.absent", "table_missing"),
    ]
    assert "no_identity" in found(dsn, {"public.deferred": ("id",)})


def test_preflight_reports_what_a_role_may_not_do(password_server: DemoServer) -> None:
    run(
        password_server.dsn(),
        "CREATE TABLE secret (id int PRIMARY KEY)",
        "ALTER PUBLICATION cdc_merge ADD TABLE secret",
    )
    problems = found(over_tcp(password_server, "plain", SECRET), {"public.secret": ("id",)})
    assert {"not_permitted", "not_selectable"} == problems.keys()
    run(password_server.dsn(), "DROP TABLE secret")


def test_preflight_raises_when_the_server_does_not_answer(password_server: DemoServer) -> None:
    with pytest.raises(SourceRefused) as refused:
        preflight(over_tcp(password_server, "reader", "wrong"), "cdc_merge", TABLES)
    assert refused.value.problem == "authentication"
    with pytest.raises(SourceUnavailable):
        preflight(f"postgresql://u:{SECRET}@127.0.0.1:1/d", "cdc_merge", TABLES)


def test_a_table_is_described_as_its_stream_will_show_it(dsn: str) -> None:
    run(
        dsn,
        "CREATE DOMAIN phone AS varchar(20)",
        "CREATE TYPE mood AS ENUM ('calm')",
        "CREATE TABLE wide (a int, id int PRIMARY KEY, p phone, m mood, ms mood[], gone int)",
        "ALTER TABLE wide DROP COLUMN gone",
    )
    facts = describe(dsn, ["public.wide", "public.absent"], publication="cdc_merge")
    assert list(facts) == ["public.wide"]
    wide = facts["public.wide"]
    assert [(name, type_name) for name, (_, type_name) in wide.columns.items()] == [
        ("a", "int4"),
        ("id", "int4"),
        ("p", "varchar"),
        ("m", "public.mood"),
        ("ms", "public.mood[]"),
    ]
    assert (wide.identity, wide.identity_columns, wide.primary_key, wide.published) == ("d", ("id",), ("id",), False)


def test_no_row_of_these_tests_was_parked(dsn: str) -> None:
    with Reading(dsn, TABLES).start() as reading:
        reading.until_copied()
        run(
            dsn,
            "INSERT INTO customer VALUES (1, 'a')",
            "ALTER TABLE customer ADD extra int",
            "UPDATE customer SET extra = 1",
        )
        reading.until(lambda: len(reading.streamed) == 2, "both changes came")
        assert not [fact for fact in reading.facts if isinstance(fact, Parked)]
