"""Servers for the doctor's tests: one of 18 and one of 15 as a good DBA sets them up, and patients on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cdc_merge.demo.binaries import installed
from cdc_merge.demo.servers import Server, start_server
from tests.conftest import FAST
from tests.doctor.patient import WELL, Patient, admitted


@pytest.fixture(scope="session")
def clinic(server_directory: Path) -> Iterator[Server]:
    with start_server(server_directory / "clinic", settings={**FAST, **WELL}) as server:
        yield server


@pytest.fixture(scope="session")
def old_clinic(server_directory: Path) -> Iterator[Server]:
    if installed("15") is None:
        pytest.skip("PostgreSQL 15 is not installed: apt-get install postgresql-15")
    with start_server(server_directory / "clinic15", settings={**FAST, **WELL}, version="15") as server:
        yield server


@pytest.fixture
def patient(clinic: Server) -> Iterator[Patient]:
    with admitted(clinic) as someone:
        yield someone


@pytest.fixture
def old_patient(old_clinic: Server) -> Iterator[Patient]:
    with admitted(old_clinic) as someone:
        yield someone


@pytest.fixture(params=["18", "15"])
def either(request: pytest.FixtureRequest) -> Iterator[Patient]:
    """A patient on each version in turn."""
    server: Server = request.getfixturevalue("clinic" if request.param == "18" else "old_clinic")
    with admitted(server) as someone:
        yield someone


@pytest.fixture
def another(clinic: Server) -> Iterator[Callable[[], Patient]]:
    """Further patients on the same server."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(admitted(clinic))
