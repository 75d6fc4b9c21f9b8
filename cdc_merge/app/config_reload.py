"""Reload of the configuration: loaded on the caller's thread, applied between two batches by the merging thread.

One reload at a time. Nothing changes until it is applied, and a cancelled one is never applied later: the caller knows
which configuration is in force.
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

# Far above the duration of a batch; a merging thread that takes longer has another problem, with its own alert.
APPLY_LIMIT_S: Final = 30.0


class ConfigReload:
    """`apply` puts settings in force, or raises a CdcMergeError with the previous ones still in force; `wake` wakes the
    merging thread. `environment` has the values of `${NAME}`."""

    def __init__(
        self,
        settings: Settings,
        environment: Mapping[str, str],
        apply: Callable[[Settings], None],
        wake: Callable[[], None],
        observe: Observer,
    ) -> None:
        self._settings = settings
        self._environment = environment
        self._apply = apply
        self._wake = wake
        self._observe = observe
        self._one_at_a_time = threading.Lock()
        self._next: tuple[Settings, Future[None]] | None = None

    def reload(self) -> None:
        """Put the file's present content in force. ConfigError if it is invalid or needs a restart; nothing changes then."""
        with self._one_at_a_time:
            try:
                self._reload()
            except Exception as error:
                # Of an internal error only the type: its message may hold row values.
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
        applied: Future[None] = Future()
        self._next = (new, applied)
        self._wake()
        try:
            applied.result(APPLY_LIMIT_S)
        except TimeoutError:
            if applied.cancel():
                sentence = (
                    f"The merging thread was busy for {APPLY_LIMIT_S:g} s; the previous configuration is in force."
                )
                raise CdcMergeError(sentence, hint="Retry when it has caught up.") from None
            applied.result()
        self._settings = new

    def between_batches(self) -> None:
        """Called by the merging thread: apply a waiting reload."""
        if self._next is None:
            return
        (settings, applied), self._next = self._next, None
        if not applied.set_running_or_notify_cancel():
            return
        try:
            self._apply(settings)
        except Exception as error:  # noqa: BLE001 - passed to the caller; the previous configuration is in force
            applied.set_exception(error)
        else:
            applied.set_result(None)
