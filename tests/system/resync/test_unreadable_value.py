"""A value that the server cannot send stops its source by name, and nothing of it is shown; a resync goes on behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from cdc_merge.demo.servers import DemoServer
from tests.support.databases import fresh_database
from tests.support.process_pool import ProcessPool
from tests.system.postgres.reading import run
from tests.system.resync.driven_sidecar import C1, DrivenSidecar, create_tables, start_and_copy

Make = Callable[..., DrivenSidecar]
OTHER = "CREATE TABLE other (id int PRIMARY KEY, note text)"
SECRET = "1380013800"


@pytest.fixture
def windows(postgres_server: DemoServer, process_pool: ProcessPool, tmp_path: Path) -> Iterator[DrivenSidecar]:
    """A sidecar over crm in WIN1252, whose byte 81 has no equivalent in UTF-8, and erp in UTF-8."""
    with psycopg.connect(postgres_server.dsn(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE win1252 ENCODING 'WIN1252' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    dsn = postgres_server.dsn("win1252")
    try:
        with fresh_database(postgres_server) as erp:
            create_tables([dsn, erp], OTHER, "ALTER PUBLICATION cdc_merge ADD TABLE other", C1)
            with DrivenSidecar(process_pool, tmp_path, {"crm": dsn, "erp": erp}) as it:
                yield it
            run(dsn, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = 'win1252'")
    finally:
        with psycopg.connect(postgres_server.dsn(), autocommit=True) as connection:
            connection.execute("DROP DATABASE win1252 WITH (FORCE)")


def write_unconvertible(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True, client_encoding="WIN1252") as connection:
        connection.execute(b"INSERT INTO other VALUES (1, E'\\x81')")


def test_a_value_without_utf8_in_an_unmapped_table_stops_its_source_alone_and_a_resync_goes_on_behind_it(
    windows: DrivenSidecar,
) -> None:
    it = start_and_copy(windows)
    write_unconvertible(it.dsns["crm"])
    run(it.dsns["crm"], "UPDATE customer SET phone = '7' WHERE no = 'C1'")
    it.until_state("crm", "stopped")
    problem = it.source("crm")["problem"]
    assert "22P05" in problem
    assert "cdc-merge source resync crm" in problem
    assert "0x81" not in problem
    run(it.dsns["erp"], "UPDATE customer SET name = 'erp goes on' WHERE no = 'C1'")
    it.until_level("erp")
    it.posted("/api/v1/sources/crm/resync")
    it.until_state("crm", "streaming")
    it.until_resynced("crm")
    assert it.held("C1", "crm")["phone"] == "7"
    run(it.dsns["crm"], "UPDATE customer SET phone = '8' WHERE no = 'C1'")
    it.until_level()
    assert it.held("C1", "crm")["phone"] == "8"
    assert it.merged("C1")["name"] == "erp goes on"
    run(it.dsns["crm"], "INSERT INTO other VALUES (2, 'plain')")
    it.until_level("crm")


def test_a_row_filter_that_fails_on_a_value_shows_nothing_of_it(sidecar: Make) -> None:
    it = sidecar(OTHER, "ALTER PUBLICATION cdc_merge ADD TABLE other WHERE (make_date(id, 1, 1) > '2000-01-01')", C1)
    start_and_copy(it)
    run(it.dsns["crm"], f"INSERT INTO other VALUES ({SECRET}, 'x')")
    it.until_state("crm", "stopped")
    assert "22008" in it.source("crm")["problem"]
    shown = it.cli("source", "list")
    everything = shown.stdout + shown.stderr + (it.directory / "log").read_text() + it.metrics() + str(it.source("crm"))
    assert SECRET not in everything
    assert 'problem="value_unreadable"' in it.metrics()
