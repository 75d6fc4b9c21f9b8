"""What a slot keeps and may keep, as a real server with a limit shows it, and how long that lasts at its pace."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from cdc_merge.demo.servers import DemoServer
from cdc_merge.model import SourceStatus
from cdc_merge.observers.wal_rate import WalRate
from tests.system.postgres.customer_table import SETUP, TABLES
from tests.system.postgres.reading import Reading, run, wait_for

LIMIT_BYTES = 128 << 20
WORK = "INSERT INTO elsewhere SELECT repeat('x', 1000) FROM generate_series(1, 10000)"  # some 10 MB of WAL


def test_retained_and_safe_bytes_follow_the_log_and_give_the_time_that_is_left(
    new_server: Callable[..., DemoServer],
) -> None:
    server = new_server(settings={"max_slot_wal_keep_size": "128MB", "max_wal_size": "2GB", "checkpoint_timeout": "1h"})
    run(server.dsn(), *SETUP, "CREATE TABLE elsewhere (t text)")
    with Reading(server.dsn(), TABLES, confirming=False).start() as reading:
        reading.until_copied()
        reading.until_streaming()
        first = _status(reading, lambda status: status.safe_bytes is not None and status.server_lsn > 0)
        assert first.wal_status == "reserved"
        assert 0 < (first.safe_bytes or 0) <= LIMIT_BYTES + (32 << 20)
        run(server.dsn(), WORK, WORK, WORK)
        second = _status(
            reading, lambda status: (status.retained_bytes or 0) > (first.retained_bytes or 0) + (25 << 20)
        )
        assert second.safe_bytes is not None
        assert (first.safe_bytes or 0) - second.safe_bytes > 25 << 20
        written = second.server_lsn - first.server_lsn
        assert math.isclose(
            _seconds_left([(0.0, first), (60.0, second)]), second.safe_bytes / (written / 60), rel_tol=0.01
        )
        assert _seconds_left([(0.0, second), (60.0, replace(second))]) == math.inf


def test_an_overrun_slot_is_refused_as_lost(new_server: Callable[..., DemoServer]) -> None:
    server = new_server(settings={"max_slot_wal_keep_size": "32MB", "max_wal_size": "64MB", "min_wal_size": "32MB"})
    run(server.dsn(), *SETUP, "CREATE TABLE elsewhere (t text)")
    with Reading(server.dsn(), TABLES, confirming=False).start() as reading:
        reading.until_copied()
        reading.until_streaming()
        for _ in range(10):
            run(server.dsn(), WORK, "CHECKPOINT")
        wait_for(lambda: reading.take() and False or reading.source.status().state == "stopped", "it was lost", 30)
        assert reading.refusal().problem == "slot_lost"


def _status(reading: Reading, fact: Callable[[SourceStatus], bool]) -> SourceStatus:
    def look() -> SourceStatus | None:
        reading.take()
        status = reading.source.status()
        return status if fact(status) else None

    found: SourceStatus = wait_for(look, "the slot's figures follow")
    return found


def _seconds_left(readings: list[tuple[float, SourceStatus]]) -> float:
    """What is said at the last of the readings, each taken at its second."""
    now_s = [0.0]
    pace = WalRate(lambda: now_s[0])
    left: float | None = None
    for now_s[0], status in readings:
        left = pace.seconds_left(status)
    assert left is not None
    return left
