"""Fixtures of the scenarios: `incident(…)` sets up systems and starts the sidecars that watch them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from cdc_merge.demo.servers import DemoServer
from tests.support.databases import drop_slots, fresh_database
from tests.support.process_pool import ProcessPool
from tests.system.scenarios.incident import Incident, Setting, Site

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def site(
    three_servers: Mapping[str, DemoServer], process_pool: ProcessPool, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """One database for each system, for the whole session; an incident has a schema of its own in each."""
    directory: Path = tmp_path_factory.mktemp("incidents")
    with ExitStack() as stack:
        dsns = {name: stack.enter_context(fresh_database(server)) for name, server in three_servers.items()}
        connections = {name: stack.enter_context(psycopg.connect(dsn, autocommit=True)) for name, dsn in dsns.items()}
        yield Site(connections, dsns, directory, process_pool)


@pytest.fixture
def incident(site: Site) -> Iterator[Callable[..., Incident]]:
    """`incident(fields=…, held=…, …)`: see Setting."""
    begun: list[Incident] = []

    def begin(**setting: object) -> Incident:
        begun.append(Incident(site, f"i{next(_numbers)}", Setting(**setting)))  # type: ignore[arg-type]  # checked by Setting
        begun[-1].begin()
        return begun[-1]

    yield begin
    for each in begun:
        each.end()
    for connection in site.connections.values():
        drop_slots(connection, connection.info.dbname)
