"""Copies that arrive before their original: they wait `max_ahead` of stamp time for it (semantics §2 rule 2).

When the original arrives, the copy's source has seen it since the copy, and so has everything that was written on the copy.
"""

from __future__ import annotations

from cdc_merge.merge.unit_state import UnitState
from cdc_merge.merge.writes import WaitingCopy, Write
from cdc_merge.model import Stamp


def match(state: UnitState, write: Write) -> None:
    """Join the contexts of the copies that waited for this write. Its own context must be complete (`Write.after`)."""
    for waiting in state.waiting_copies:
        if waiting.source == write.source:
            waiting.written |= write.bit
        elif waiting.is_for(write) and not write.seen & waiting.written:
            state.waiting_copies = tuple(w for w in state.waiting_copies if w is not waiting)
            _join_original(state, waiting, write)


def _join_original(state: UnitState, waiting: WaitingCopy, original: Write) -> None:
    learned = original.bit | original.after
    state.overwrite_if_concurrent(state.writes.get(waiting.replaced), original)
    at_source = state.at(waiting.source)
    at_source.seen |= learned
    at_source.inserts |= original.inserts
    if not waiting.written:
        return
    for later in state.writes.values():
        if later is not original and later.after & waiting.written:
            later.after |= learned
            if later.bit & waiting.written or later.seen & waiting.written:
                later.seen |= learned
                later.inserts |= original.inserts
    for other in state.by_source.values():
        if other.seen & waiting.written:
            other.seen |= learned
            other.inserts |= original.inserts
    dominated = state.writes_in(state.frontier & learned & ~waiting.written)
    state.frontier &= ~sum([w.bit for w in dominated if not w.seen & waiting.written])


def see_since(state: UnitState, source: str, since: Stamp, learned: int) -> None:
    """The source has seen these writes since then: what it has written later dominates them."""
    state.at(source).seen |= learned
    for write in state.writes.values():
        if write.source == source and write.stamp > since:
            seen = learned & ~write.bit
            for other in state.writes_in(seen & sum(state.writes)):
                if other.seen & write.bit:
                    seen &= ~other.bit
            write.seen |= seen
            write.after |= seen
            state.frontier &= ~seen


def expire(state: UnitState, now: Stamp, max_ahead_us: int) -> None:
    """Copies that have waited `max_ahead` join no context any more."""
    state.waiting_copies = tuple(
        w for w in state.waiting_copies if now.wall_us - w.change.stamp.wall_us <= max_ahead_us
    )
