"""append: a text log. An update that continues what was there is a part; the value is every part in stamp order.

An insert, a decision and an update that does not continue the text are rewrites; NULL is the empty log for an update.
A part or another rewrite concurrent with a rewrite is asked about; equal rewrites are one. Equality of anything else
proves nothing: logs never agree.
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


def zero(cell: UnitState, plan: FieldPlan) -> None:
    cell.extra = 0


def _part(cell: UnitState, write: Write) -> bool:
    """Note what an update appended; parts are numbered as they come."""
    before, after = _text(write.before), _text(write.value)
    if not isinstance(before, str) or not isinstance(after, str) or not after.startswith(before):
        return False
    cell.extra += 1
    write.delta = (Run(cell.extra, cell.extra, after[len(before) :]),)
    return True


def _text(value: MaybeValue) -> str | None:
    """A log's text; None when nobody knows it."""
    return "" if value is None else None if value is UNKNOWN else str(value)


def together(one: tuple[Run, ...], other: tuple[Run, ...]) -> tuple[Run, ...]:
    """Both parts as one. Runs that no foreign part can come between become one run."""
    joined: list[Run] = []
    for run in sorted((*one, *other)):
        if joined and joined[-1].last + 1 == run.first:
            joined[-1] = Run(joined[-1].first, run.last, joined[-1].text + run.text)
        else:
            joined.append(run)
    return tuple(joined)


def read(cell: UnitState, plan: FieldPlan, front: list[Write]) -> MaybeValue:
    standing = delta_ops.standing(cell, front)
    if standing:
        latest = max(standing, key=lambda w: w.stamp)
        log, seen = latest.value, latest.seen | latest.bit
    else:
        log, seen = cell.base, 0
    unseen = [write.delta for write in delta_ops.unseen(cell, seen)]
    added = "".join(run.text for run in sorted(run for runs in unseen for run in runs))
    return (_text(log) or "") + added if unseen else log


def load_state(cell: UnitState, plan: FieldPlan) -> None:
    for write in cell.writes.values():
        write.delta = write.delta and tuple([Run(*run) for run in write.delta])


TYPE = mv.TYPE._replace(
    name="append",
    traits=Traits(agrees=False, settles=False, overwrites=False, together=together),
    zero=zero,
    apply=delta_ops.applying(_part, equal_are_one=True),
    decide=delta_ops.decide,
    end=delta_ops.end,
    read=read,
    conflicting_writes=delta_ops.conflicting_writes,
    load_state=load_state,
)
