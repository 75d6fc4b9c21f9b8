"""The state that a reader's thread and the pipeline's thread share about one source, and nothing else.

Rules: each attribute has one writer; single attributes are read without a lock; the queue has its own lock.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from cdc_merge.model import Delivery, Position
from cdc_merge.model.capture_counters import Tally
from cdc_merge.model.source_commands import ChunkRequest
from cdc_merge.sources.delivery_queue import DeliveryQueue
from cdc_merge.sources.postgres.heartbeat_writer import HeartbeatWriter
from cdc_merge.sources.postgres.reader_limits import DEFAULT_READER_LIMITS, ReaderLimits
from cdc_merge.sources.postgres.resume_checks import Slot
from cdc_merge.sources.spill import RowSpill


class ReaderState:
    """`wake` wakes the pipeline after a delivery; `woken` is the descriptor that is readable when the reader is called.

    `request` is the chunk of an incremental snapshot to be read; the reader clears it with its answer.
    `delivered` is the position up to which everything is in the queue, `confirmed_lsn` the LSN up to which the pipeline has it
    on disk. `directory` is where rows of large transactions are spilled. With `accepts_loss`, a lost position is followed by
    a new snapshot; `lost` is the problem by which it was lost. `resync_requested`: the reader was started with
    `accepts_loss`, which covers unreadable values of the WAL up to `resync_until_lsn`. `open_bytes` are of a transaction without its commit.
    """

    def __init__(
        self,
        max_queued_bytes: int,
        wake: Callable[[], None],
        directory: str | None = None,
        limits: ReaderLimits = DEFAULT_READER_LIMITS,
    ) -> None:
        self.limits = limits
        self._wake = wake
        self._directory = directory
        self.tally = Tally()
        self.open_bytes = 0
        self.heartbeats: HeartbeatWriter | None = None
        self.accepts_loss = False
        self.lost: str | None = None
        self.resync_requested = False
        self.resync_until_lsn = 0
        self._woken, self._waker = socket.socketpair()
        self._woken.settimeout(0)
        self._waker.settimeout(0)
        self.queue = DeliveryQueue(max_queued_bytes, self.call_reader)
        self.stopping = threading.Event()
        self.delivered: Position | None = None
        self.confirmed_lsn = 0
        self.is_streaming = False
        self.received_lsn = 0
        self.server_lsn = 0
        self.last_commit_us: int | None = None
        self.last_message_us: int | None = None
        self.last_received_us: int | None = None
        self.streams_begun = 0
        self.slot: Slot | None = None
        self.request: ChunkRequest | None = None

    @property
    def woken(self) -> int:
        return self._woken.fileno()

    def call_reader(self) -> None:
        """Wake the reader. A full socket means that it was called already, a closed one that it has ended."""
        with suppress(OSError):
            self._waker.send(b"!")

    def drain_calls(self) -> None:
        with suppress(BlockingIOError):
            while self._woken.recv(4096):
                pass

    def deliver(self, delivery: Delivery, rows: int = 0, size_bytes: int = 0) -> None:
        self.queue.put(delivery, rows, size_bytes)

    def spill(self) -> RowSpill:
        return RowSpill(self._directory)

    def wake(self) -> None:
        self._wake()

    def close(self) -> None:
        """Close the sockets after the reader's end; queued deliveries can still be taken."""
        self._woken.close()
        self._waker.close()
