"""Fixtures of the resync tests: two databases on one server, and a sidecar over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cdc_merge.demo.servers import DemoServer
from tests.support.databases import fresh_database
from tests.support.process_pool import ProcessPool
from tests.system.resync.driven_sidecar import DrivenSidecar, create_tables


@pytest.fixture
def sidecar(
    postgres_server: DemoServer, process_pool: ProcessPool, tmp_path: Path
) -> Iterator[Callable[..., DrivenSidecar]]:
    """`desk("INSERT …", snapshot_workers=1)`: the statements are executed in both databases, the rest is configuration."""
    with ExitStack() as stack:
        dsns = {name: stack.enter_context(fresh_database(postgres_server)) for name in ("crm", "erp")}

        def make(*statements: str, **settings: Any) -> DrivenSidecar:
            create_tables([*dsns.values()], *statements)
            return stack.enter_context(DrivenSidecar(process_pool, tmp_path, dsns, **settings))

        yield make
