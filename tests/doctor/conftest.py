"""Servers for the doctor's tests: one of 18 and one of 15 as a good DBA sets them up, and patients on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cdc_merge.demo.binaries import installed
from cdc_merge.demo.servers import DemoServer, start_server
from tests.doctor.patient import WELL, Patient, admitted, bed
from tests.support.databases import NO_FSYNC, fresh_database


@pytest.fixture(scope="session")
def clinic(server_directory: Path) -> Iterator[DemoServer]:
    with start_server(server_directory / "clinic", settings={**NO_FSYNC, **WELL}) as server:
        yield server


@pytest.fixture(scope="session")
def old_clinic(server_directory: Path) -> Iterator[DemoServer]:
    if installed("15") is None:
        pytest.skip("PostgreSQL 15 is not installed: apt-get install postgresql-15")
    with start_server(server_directory / "clinic15", settings={**NO_FSYNC, **WELL}, version="15") as server:
        yield server


@pytest.fixture(scope="session")
def ward(clinic: DemoServer) -> Iterator[str]:
    """One database for many patients, one after the other: making a database takes longer than an examination."""
    with fresh_database(clinic) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def old_ward(old_clinic: DemoServer) -> Iterator[str]:
    with fresh_database(old_clinic) as dsn:
        yield dsn


@pytest.fixture
def patient(clinic: DemoServer, ward: str) -> Iterator[Patient]:
    with bed(clinic, ward) as someone:
        yield someone


@pytest.fixture
def old_patient(old_clinic: DemoServer, old_ward: str) -> Iterator[Patient]:
    with bed(old_clinic, old_ward) as someone:
        yield someone


@pytest.fixture(params=["18", "15"])
def either(request: pytest.FixtureRequest) -> Iterator[Patient]:
    """A patient on each version in turn."""
    names = ("clinic", "ward") if request.param == "18" else ("old_clinic", "old_ward")
    server, dsn = (request.getfixturevalue(name) for name in names)
    with bed(server, dsn) as someone:
        yield someone


@pytest.fixture
def another(clinic: DemoServer) -> Iterator[Callable[[], Patient]]:
    """Further patients on the same server."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(admitted(clinic))
