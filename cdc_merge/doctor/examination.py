"""One examination: ask each source, walk its path when wanted, judge. A source that cannot be asked is told, too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from cdc_merge.doctor.asking import ask
from cdc_merge.doctor.catalogue import judged, judged_across, unreachable
from cdc_merge.doctor.facts import Canary, Facts, NotAnswered, Probed, Subject
from cdc_merge.doctor.probe import canary, probed
from cdc_merge.doctor.results import Check
from cdc_merge.errors import CdcMergeError


class Examination(NamedTuple):
    """Every check's answer, and why sources could not be asked."""

    checks: tuple[Check, ...]
    silent: tuple[CdcMergeError, ...]


def examine(patients: Sequence[tuple[Subject, str]], now_us: Callable[[], int], *, probing: bool) -> Examination:
    """Examine sources, given with their DSNs. `probing` allows what does something there (probe.py)."""
    heard: list[Facts] = []
    checks: list[Check] = []
    silent: list[CdcMergeError] = []
    for subject, dsn in patients:
        try:
            facts = ask(subject, dsn, now_us)
        except CdcMergeError as error:
            silent.append(error)
            checks.append(unreachable(subject.source, str(error), error.hint))
            continue
        facts = walked(facts, dsn) if probing else facts
        heard.append(facts)
        checks += judged(facts)
    return Examination((*checks, *judged_across(heard)), tuple(silent))


def walked(facts: Facts, dsn: str) -> Facts:
    """The facts with the probes' results."""
    found: dict[type[Any], object] = {Probed: (probed(facts.subject, dsn, facts),)}
    slot = _slot_in_use(facts)
    if slot:
        answer = canary(facts.subject, dsn)
        found[Canary] = answer if isinstance(answer, NotAnswered) else (answer,)
    return facts.also(found)


def _slot_in_use(facts: Facts) -> bool:
    try:
        slot = facts.our_slot()
    except NotAnswered:
        return False
    return slot is not None and slot.active and (slot.holder or "").startswith("cdc_merge/")
