"""A reload of the configuration: read by whoever asks for it, taken between two batches by the thread that merges.

One reload at a time. Until it is taken nothing has changed, and one that is given up is never taken later: whoever
asked knows which configuration is in force.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Final

from cdc_merge.config.load import load
from cdc_merge.config.reloadable import copy_value_types, refuse_restarts
from cdc_merge.config.settings import Settings
from cdc_merge.errors import CdcMergeError, ConfigError
from cdc_merge.model import ConfigReloaded
from cdc_merge.model.ports import Observer

# Far above a batch; a merging thread that takes longer has another problem, which alerts tell.
TAKE_LIMIT_S: Final = 30.0


class ConfigReload:
    """`take` puts settings in force, and raises a CdcMergeError when it cannot, the old ones still in force; `wake`
    makes the merging thread look up. `environment` gives the values of `${NAME}`."""

    def __init__(
        self,
        settings: Settings,
        environment: Mapping[str, str],
        take: Callable[[Settings], None],
        wake: Callable[[], None],
        observe: Observer,
    ) -> None:
        self._settings = settings
        self._environment = environment
        self._take = take
        self._wake = wake
        self._observe = observe
        self._one_at_a_time = threading.Lock()
        self._next: tuple[Settings, Future[None]] | None = None

    def reload(self) -> None:
        """Put the file's present content in force. ConfigError when it cannot be used or needs a restart: nothing has
        changed then."""
        with self._one_at_a_time:
            try:
                self._reload()
            except Exception as error:
                # Of a fault of ours only the name: its message may hold anything.
                problem = str(error) if isinstance(error, CdcMergeError) else type(error).__name__
                problems = error.problems if isinstance(error, ConfigError) else ()
                self._observe(ConfigReloaded(self._settings.plan.policy, problem, problems))
                raise
            self._observe(ConfigReloaded(self._settings.plan.policy))

    def _reload(self) -> None:
        old = self._settings
        new = load(old.file, self._environment)
        refuse_restarts(old, new)
        new = dataclasses.replace(new, plan=copy_value_types(new.plan, old.plan))
        taken: Future[None] = Future()
        self._next = (new, taken)
        self._wake()
        try:
            taken.result(TAKE_LIMIT_S)
        except TimeoutError:
            if taken.cancel():
                sentence = f"The merging thread was busy for {TAKE_LIMIT_S:g} s; the old configuration is in force."
                raise CdcMergeError(sentence, hint="Ask again when it has caught up.") from None
            taken.result()
        self._settings = new

    def between_batches(self) -> None:
        """Called by the merging thread: take what waits to be taken."""
        if self._next is None:
            return
        (settings, taken), self._next = self._next, None
        if not taken.set_running_or_notify_cancel():
            return
        try:
            self._take(settings)
        except Exception as error:  # noqa: BLE001 - handed to whoever asked; the old configuration is in force
            taken.set_exception(error)
        else:
            taken.set_result(None)
