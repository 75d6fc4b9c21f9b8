"""The tables of the pytest plugins: a file that is renamed must be renamed in them too, or it silently loses its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fast_subset import LONG, SAMPLED
from tests.slowest_first import SLOWEST

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("file", sorted({*LONG, *SAMPLED, *SLOWEST}))
def test_every_file_of_a_table_exists_once(file: str) -> None:
    assert len(list(TESTS.rglob(f"*/{file}"))) + (TESTS / file).exists() == 1
