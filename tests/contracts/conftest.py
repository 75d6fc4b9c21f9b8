"""Fixtures of the contract tests: each test runs against every store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cdc_merge.model.ports import Store
from tests.contracts.store_subjects import SUBJECTS, Opening


@pytest.fixture(params=SUBJECTS)
def opening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opening]:
    """Opens the same store each time it is called; what is still open is closed at the end."""
    again = SUBJECTS[request.param](tmp_path)
    with ExitStack() as opened:

        def open_it() -> Store:
            store = again()
            opened.callback(store.close)
            return store

        yield open_it


@pytest.fixture
def store(opening: Opening) -> Store:
    store = opening()
    store.claim("the test")
    return store
