"""One module per rule kind; `RULES` is the table of what is asked of a record beyond what the merge asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from cdc_merge.decision.rules import business, divergence, invariant, unauthorized
from cdc_merge.decision.rules.rulebook import Rulebook, Stage
from cdc_merge.merge.record import Record
from cdc_merge.model import Question

RULES: Final[tuple[Callable[[Record, Rulebook, Stage], Iterator[Question]], ...]] = (
    unauthorized.ask,
    business.ask,
    divergence.ask,
    invariant.ask,
)
