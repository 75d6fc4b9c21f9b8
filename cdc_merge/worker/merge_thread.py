"""The merging thread: one batch after the other, until it is stopped.

Rules
- While another program holds the store no batch begins: what arrived is kept, and the batch is retried.
- Any other error ends the thread; `failure` has it, and `problem` describes it.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from typing import Final

from cdc_merge.errors import CdcMergeError, StoreHeld, error_location
from cdc_merge.model import StoreWaits
from cdc_merge.model.ports import Observer

# The longest sleep without a wake-up: bounds the delay of announcing a settled conflict.
IDLE_WAIT_S: Final = 0.1
HELD_WAIT_S: Final = 1.0  # between two attempts, each of which waits for the store's own limit
# Record states are millions of small objects without cycles: looking for cycles among them as often as the interpreter
# would took a sixth of a backlog's time (measured, 100,000 updates). Few objects have cycles (HTTP, errors).
COLLECT_IDLE_S: Final = 300.0  # one collection takes half a second over 10,000 records
COLLECT_BUSY_S: Final = 900.0  # where the thread is never idle


class MergeThread:
    """`step` runs a batch and returns whether there was anything to do; `wake` ends the sleep after a step without work."""

    def __init__(self, step: Callable[[], bool], wake: threading.Event, observe: Observer) -> None:
        self._step = step
        self._wake = wake
        self._observe = observe
        self._thread: threading.Thread | None = None
        self._held_since_s: float | None = None
        self.stopping = threading.Event()
        self.failure: BaseException | None = None

    def start(self) -> None:
        gc.disable()
        self._thread = threading.Thread(target=self._work, name="merge", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Begin no further batch; does not wait."""
        self.stopping.set()
        self._wake.set()

    def join(self, limit_s: float) -> None:
        if self._thread is not None:
            self._thread.join(limit_s)
        gc.enable()

    @property
    def problem(self) -> str | None:
        """The error that ended merging; None while the thread works, and before the start."""
        if self.failure is not None:
            error = str(self.failure) if isinstance(self.failure, CdcMergeError) else error_location(self.failure)
            return f"Merging has stopped: {error}"
        return None

    @property
    def held(self) -> str | None:
        """Why merging waits; None while it goes on."""
        since_s = self._held_since_s
        if since_s is None:
            return None
        return f"Another program has held the store for {time.monotonic() - since_s:.0f} s; deliveries wait."

    def _work(self) -> None:
        collected_s = time.monotonic()
        try:
            while not self.stopping.is_set():
                is_busy = self._try_step()
                if not is_busy:
                    self._wake.wait(IDLE_WAIT_S)
                    self._wake.clear()
                if time.monotonic() - collected_s > (COLLECT_BUSY_S if is_busy else COLLECT_IDLE_S):
                    gc.collect()
                    collected_s = time.monotonic()
        except BaseException as failure:  # noqa: BLE001 - the edge of the thread: kept, and raised by Sidecar.wait
            self.failure = failure
            self.stopping.set()

    def _try_step(self) -> bool:
        try:
            is_busy = self._step()
        except StoreHeld as held:
            if self._held_since_s is None:
                self._held_since_s = time.monotonic()
                self._observe(StoreWaits(str(held), held.hint))
            self.stopping.wait(HELD_WAIT_S)
            return True
        if self._held_since_s is not None:
            seconds, self._held_since_s = time.monotonic() - self._held_since_s, None
            self._observe(StoreWaits(None, seconds=seconds))
        return is_busy
