"""A pytest plugin: marks `servers` and `slow` by where a test stands and what it uses, so that `make test-fast` can leave them out.

- `servers`: the test is below tests/system, or one of its fixtures starts a PostgreSQL server.
- `slow`: the test belongs to a long suite (`LONG`), or it is one of the cases that a sampled suite (`SAMPLED`) leaves out: a law
  that runs once for each merge type keeps every twelfth case, its first always.

`make test` runs everything, whatever is marked. A run without `servers` fails where a server is started all the same
(conftest.server_directory).
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import pytest

# Every fixture that starts a server keeps its files in `server_directory`; `either` requests such a fixture while it runs.
SERVER_FIXTURES: Final = frozenset({"server_directory", "either"})
LONG: Final = ("laws/test_state_machine.py", "contracts/test_earlier_store.py")
SAMPLED: Final = (
    "laws/test_fold_equals_oracle.py",
    "laws/test_compaction.py",
    "laws/test_checkpoint.py",
    "laws/test_explain.py",
    "laws/test_named_late.py",
    "merge/test_duplicate_rows.py",
    "worker/test_unresolved_rows.py",
)
EVERY: Final = 12

MARKERS: Final = (
    "servers: needs a PostgreSQL server or another program (set by tests/fast_subset.py)",
    "slow: left out of `make test-fast` (set by tests/fast_subset.py)",
)


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


# Before pytest's own hook, which selects by -m.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    cases: Counter[str] = Counter()
    for item in items:
        if _needs_servers(item):
            item.add_marker("servers")
        function = item.nodeid.partition("[")[0]
        if _is_one_of(item, LONG) or (_is_one_of(item, SAMPLED) and cases[function] % EVERY):
            item.add_marker("slow")
        cases[function] += 1


def _needs_servers(item: pytest.Item) -> bool:
    is_system = "system" in item.path.relative_to(item.config.rootpath).parts
    return is_system or not SERVER_FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))


def _is_one_of(item: pytest.Item, files: tuple[str, ...]) -> bool:
    return any(item.path.match(file) for file in files)
