"""A Reading whose reader is a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from cdc_merge.sources.process.parent import ProcessSource
from tests.system.postgres.customer_table import TABLES
from tests.system.postgres.reading import Reading, reader_settings, wait_for


class ProcessReading(Reading):
    """A Reading whose source is an ProcessSource."""

    def __init__(
        self,
        dsn: str,
        tables: Mapping[str, Sequence[str]] = TABLES,
        *,
        confirming: bool = True,
        window_bytes: int = 16 << 20,
        max_queued_bytes: int = 16 << 20,
        publication: str = "cdc_merge",
    ) -> None:
        super().__init__(dsn, tables, confirming=confirming)
        wanted = reader_settings(dsn, tables, publication=publication, max_queued_bytes=max_queued_bytes)
        self.source = ProcessSource(wanted, self.woken.set, self._note, window_bytes)

    def kill_reader(self) -> None:
        """SIGKILL the reader's process and wait until the server has noticed and another one streams."""
        (reader,) = readers()
        before = self.source.status().reconnects
        os.kill(reader.pid or 0, signal.SIGKILL)
        wait_for(lambda: self.source.status().reconnects > before, "another reader was started")


def readers() -> list[Any]:
    return [child for child in multiprocessing.active_children() if child.name == "reader-crm"]
