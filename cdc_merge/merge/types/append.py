"""append, a text log with resets: an update that continues the text is a delta; the value is every delta in stamp order.

An insert, a decision and an update that does not continue the text are resets; NULL is the empty log for an update. A delta
or another reset concurrent with a reset is a conflict; equal resets are one. Equal values prove nothing else: logs never
agree.
"""

from __future__ import annotations

from typing import NamedTuple

from cdc_merge.merge import delta_ops
from cdc_merge.merge.types import mv
from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.writes import Traits, Write
from cdc_merge.model import UNKNOWN, MaybeValue
from cdc_merge.model.plan import FieldPlan


class Run(NamedTuple):
    """Text appended by the changes numbered `first` to `last` of the log, in stamp order."""

    first: int
    last: int
    text: str


def zero(state: UnitState, plan: FieldPlan) -> None:
    state.type_state = 0


def _append(state: UnitState, write: Write) -> bool:
    """Note what an update appended; deltas are numbered in stamp order."""
    before, after = _text(write.before), _text(write.value)
    if not isinstance(before, str) or not isinstance(after, str) or not after.startswith(before):
        return False
    state.type_state += 1
    write.delta = (Run(state.type_state, state.type_state, after[len(before) :]),)
    return True


def _text(value: MaybeValue) -> str | None:
    """A log's text; None when it is unknown."""
    return "" if value is None else None if value is UNKNOWN else str(value)


def combine(one: tuple[Run, ...], other: tuple[Run, ...]) -> tuple[Run, ...]:
    """Both deltas as one. Runs that no other delta can come between become one run."""
    joined: list[Run] = []
    for run in sorted((*one, *other)):
        if joined and joined[-1].last + 1 == run.first:
            joined[-1] = Run(joined[-1].first, run.last, joined[-1].text + run.text)
        else:
            joined.append(run)
    return tuple(joined)


def read(state: UnitState, plan: FieldPlan, front: list[Write]) -> MaybeValue:
    standing = delta_ops.standing_resets(state, front)
    if standing:
        latest = max(standing, key=lambda w: w.stamp)
        log, seen = latest.value, latest.seen | latest.bit
    else:
        log, seen = state.delta_base, 0
    unseen = [write.delta for write in delta_ops.unseen_deltas(state, seen)]
    added = "".join(run.text for run in sorted(run for runs in unseen for run in runs))
    return (_text(log) or "") + added if unseen else log


def load_state(state: UnitState, plan: FieldPlan) -> None:
    for write in state.writes.values():
        write.delta = write.delta and tuple([Run(*run) for run in write.delta])


TYPE = mv.TYPE._replace(
    name="append",
    traits=Traits(agrees=False, settles=False, overwrites=False, combine=combine),
    zero=zero,
    apply=delta_ops.apply_with(_append, unifies_resets=True),
    decide=delta_ops.decide,
    end=delta_ops.end,
    read=read,
    conflicting_writes=delta_ops.conflicting_writes,
    load_state=load_state,
)
