"""Fixtures of every folder: real PostgreSQL servers, fresh databases on them, and a pool that starts `cdc-merge` processes.

A server lives for the session (one for each pytest worker), a database for one test. Versions other than 18 are skipped
where they are not installed, and the run says so at its end (tests/left_out.py).
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from cdc_merge.demo.servers import DemoServer, new_directory, start_server, start_servers
from tests.support.databases import NO_FSYNC, fresh_database, skip_unless_installed
from tests.support.process_pool import ProcessPool


@pytest.fixture(scope="session")
def server_directory(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Session: the directory of all servers, which Postgres' own user may enter (pytest's tmp_path is closed to it)."""
    if "not servers" in request.config.getoption("markexpr"):
        pytest.fail("This test starts a server: name its fixture in SERVER_FIXTURES of tests/fast_subset.py.")
    directory = new_directory("cdcm-test-")
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def process_pool() -> Iterator[ProcessPool]:
    """Session: starts `cdc-merge` processes without the second that their imports take, and ends them with the tests."""
    pool = ProcessPool()
    yield pool
    pool.close()


@pytest.fixture(scope="session")
def postgres_server(server_directory: Path) -> Iterator[DemoServer]:
    """Session: the PostgreSQL 18 server that most tests share."""
    with start_server(server_directory / "main", settings=NO_FSYNC) as server:
        yield server


@pytest.fixture(scope="session")
def three_servers(server_directory: Path) -> Iterator[Mapping[str, DemoServer]]:
    """Session: three PostgreSQL 18 servers, by name: crm, erp and finance."""
    names = ("crm", "erp", "finance")
    servers = start_servers({name: server_directory / name for name in names}, settings=NO_FSYNC)
    yield servers
    for server in servers.values():
        server.stop("immediate")


@pytest.fixture(scope="session")
def second_server(server_directory: Path) -> Iterator[DemoServer]:
    """Session: a PostgreSQL 18 server beside `postgres_server`, for tests of two systems."""
    with start_server(server_directory / "second", settings=NO_FSYNC) as server:
        yield server


@pytest.fixture(scope="session", params=["17", "15"])
def old_server(request: pytest.FixtureRequest, server_directory: Path) -> Iterator[DemoServer]:
    """Session: a server of PostgreSQL 17, then of 15; the test runs once on each."""
    version: str = request.param
    skip_unless_installed(version)
    with start_server(server_directory / f"v{version}", settings=NO_FSYNC, version=version) as server:
        yield server


@pytest.fixture(scope="session", params=["15", "17", "18"])
def each_server(request: pytest.FixtureRequest, server_directory: Path) -> Iterator[DemoServer]:
    """Session: a server of PostgreSQL 15, 17 and 18 in turn, with prepared transactions; the test runs once on each."""
    version: str = request.param
    skip_unless_installed(version)
    settings = {**NO_FSYNC, "max_prepared_transactions": "5"}
    with start_server(server_directory / f"each{version}", settings=settings, version=version) as server:
        yield server


@pytest.fixture
def each_database(each_server: DemoServer) -> Iterator[str]:
    """One test: the conninfo of an empty database on 15, 17 and 18 in turn."""
    with fresh_database(each_server) as dsn:
        yield dsn


@pytest.fixture
def new_server() -> Iterator[Callable[..., DemoServer]]:
    """One test: `new_server(settings={…}, version="18")` starts a server that the test may break; it stops with the test."""
    directory = new_directory("cdcm-test-")
    numbers = itertools.count(1)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)

        def make(*, settings: Mapping[str, str] | None = None, version: str = "18") -> DemoServer:
            every = {**NO_FSYNC, **(settings or {})}
            return stack.enter_context(start_server(directory / f"s{next(numbers)}", settings=every, version=version))

        yield make


@pytest.fixture
def database(postgres_server: DemoServer) -> Iterator[str]:
    """One test: the conninfo of an empty PostgreSQL 18 database; it is dropped with its replication slots."""
    with fresh_database(postgres_server) as dsn:
        yield dsn
