"""All observers as one: an observer that fails ends nothing, and the others still receive the fact."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from cdc_merge.errors import error_location
from cdc_merge.model import Fact
from cdc_merge.model.ports import Observer

LOG: Final = logging.getLogger("cdc_merge")


class FanOut:
    """Passes each fact to every observer. An exception is logged by type and place only: its message may hold row values."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    def __call__(self, fact: Fact) -> None:
        for observer in self._observers:
            try:
                observer(fact)
            except Exception as error:  # noqa: BLE001 - the edge of an observer
                event = {"event": "observer_failed"}
                LOG.warning(
                    "An observer of %s failed with %s.", type(fact).__name__, error_location(error), extra=event
                )
