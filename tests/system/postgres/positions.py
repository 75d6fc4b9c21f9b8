"""Positions to resume from, of a small table; and a server that switches its timeline."""

from __future__ import annotations

from cdc_merge.demo.servers import DemoServer
from cdc_merge.model import Position
from tests.system.postgres.reading import Reading, confirmed_lsn, run, wait_for

TABLES = {"public.customer": ("id", "name")}
SETUP = ("CREATE TABLE customer (id int PRIMARY KEY, name text)", "CREATE PUBLICATION cdc_merge FOR TABLE customer")


def read_once(dsn: str) -> tuple[Position, str]:
    """A source that was copied, read one change, and stopped: its position and its slot."""
    with Reading(dsn, TABLES).start() as reading:
        reading.until_copied()
        run(dsn, "INSERT INTO customer VALUES (1, 'a')")
        reading.until(lambda: reading.streamed, "the row came")
        assert reading.position is not None
        lsn = reading.position.lsn
        reading.until(lambda: confirmed_lsn(dsn, reading.slot) >= lsn, "the row was confirmed")
        assert reading.position is not None
        return reading.position, reading.slot


def switch_timeline(server: DemoServer) -> None:
    """End a recovery that finds nothing to restore: the server goes on with the next timeline, as after a failover."""
    server.stop()
    with (server.data / "cdc_merge.conf").open("a") as settings:
        settings.write("restore_command = 'false'\n")
    (server.data / "recovery.signal").touch()
    server.start()
    wait_for(lambda: run(server.dsn(), "SELECT pg_is_in_recovery()") == [(False,)], "the server was promoted")
