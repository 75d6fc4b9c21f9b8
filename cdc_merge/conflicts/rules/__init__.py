"""One module per rule kind. `RULES`: the kinds that detect conflicts in one record, beyond those of the merge."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from cdc_merge.conflicts.rules import business, divergence, invariant, unauthorized
from cdc_merge.conflicts.rules.rulebook import Rulebook, RuleContext
from cdc_merge.merge.record_state import Record
from cdc_merge.model import DetectedConflict

RULES: Final[tuple[Callable[[Record, Rulebook, RuleContext], Iterator[DetectedConflict]], ...]] = (
    unauthorized.detect,
    business.detect,
    divergence.detect,
    invariant.detect,
)
