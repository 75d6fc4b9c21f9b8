"""One field (or group, or map key) of one record: its writes, who has seen them, and what each source holds.

The rules of semantics §2 live here and nowhere else: what a genuine write dominates, what a copy teaches, when sources
agree, when what everybody holds is the value. `seen` sets are bit masks over the writes that the cell still keeps.
What may be forgotten is compaction.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cdc_merge.merge.writes import (
    ABSENT,
    BASELINE,
    DECIDED,
    MISSING,
    NO_INSERTS,
    NO_PAST,
    NOTHING,
    PAST_VALUES,
    Insert,
    SourceState,
    Traits,
    WaitingCopy,
    Write,
)
from cdc_merge.model import DECISION_SOURCE, UNKNOWN, Change, MaybeValue, Stamp


class UnitState:
    """The state of one unit. `sides`: per source; `diverged`: pairs of sources that differed at their first snapshot and have not held
    one value since; `deletes`: what each delete that still counts had seen; `baselines`: first-snapshot
    values that nobody has replaced, and that no insert has met;
    `past`: for (s, t) what t has held since the two last held one value (`agreement: past`); `sets`:
    rewrites of a counter or log that no other rewrite has seen; `base`: what the parts of a counter or log add to while nobody has
    rewritten it, UNKNOWN before the first of them; `watched`: may ask although nothing is concurrent; `extra`: a type's own state."""

    __slots__ = (
        "base",
        "baselines",
        "deletes",
        "diverged",
        "extra",
        "frontier",
        "keyed",
        "next",
        "order",
        "overwritten",
        "past",
        "sets",
        "sides",
        "lost_updates",
        "traits",
        "waiting",
        "watched",
        "writes",
    )

    def __init__(self, traits: Traits, keyed: Callable[[Any], object], order: tuple[str, ...]) -> None:
        self.traits = traits
        self.order = order
        self.keyed = keyed
        self.writes: dict[int, Write] = {}
        self.next = 1
        self.frontier = 0
        self.overwritten = 0
        self.baselines = 0
        self.sets = 0
        self.base: MaybeValue = UNKNOWN
        self.sides: dict[str, SourceState] = {}
        self.deletes: dict[Stamp, int] = NOTHING
        self.past: dict[tuple[str, str], list[tuple[object, int]]] = NO_PAST
        self.waiting: tuple[WaitingCopy, ...] = ()
        self.lost_updates: tuple[Write, ...] = ()
        self.diverged: tuple[tuple[str, str], ...] = ()
        self.watched = False
        self.extra: Any = None

    # ------------------------------------------------------------ reading

    def of(self, mask: int) -> Iterator[Write]:
        """The writes of a mask, in no particular order."""
        while mask:
            bit = mask & -mask
            yield self.writes[bit]
            mask ^= bit

    def front(self) -> list[Write]:
        """The frontier in stamp order."""
        if not self.frontier & (self.frontier - 1):
            return [self.writes[self.frontier]] if self.frontier else []
        return sorted(self.of(self.frontier), key=lambda w: w.change.stamp)

    @property
    def everything(self) -> int:
        return self.next - 1

    # ------------------------------------------------------------ what a source holds

    def side(self, source: str) -> SourceState:
        side = self.sides.get(source)
        if side is None:
            side = self.sides[source] = SourceState()
        return side

    def held(self, source: str) -> object:
        """The key of what a source holds, MISSING when that is not known."""
        side = self.sides.get(source)
        return MISSING if side is None else side.key

    def view(self, source: str) -> MaybeValue:
        side = self.sides.get(source)
        return UNKNOWN if side is None else side.value

    def seen(self, source: str) -> int:
        side = self.sides.get(source)
        return 0 if side is None else side.seen

    def hold(self, source: str, change: Change, value: MaybeValue, key: object) -> SourceState:
        side = self.side(source)
        side.value, side.key, side.by = value, key, change
        return side

    def drop(self, source: str) -> None:
        """The source's row is gone: it holds nothing. What it has seen stays."""
        side = self.sides.get(source)
        if side is not None:
            side.gone = side.value, side.key
            side.value, side.key = UNKNOWN, MISSING
            self._replace_first(source, MISSING)
        if self.diverged:
            self.diverged = tuple([pair for pair in self.diverged if source not in pair])

    def leave(self, source: str) -> None:
        """The source's row is gone for itself only (`deletes: local`): what it held tells, when it returns, what is an edit."""
        side = self.sides.get(source)
        if side is not None:
            side.untouched, side.overruled = False, 0

    def come_back(self, source: str) -> None:
        """The row returned with what it had: a write of that which rule 4 overwrote meanwhile stands again."""
        side = self.sides[source]
        for write in self.of(side.overruled & self.overwritten):
            self._put_back(write)
        side.overruled = 0

    def take_back(self, source: str) -> None:
        """The source's delete was overwritten: what it held before is what the marked insert replaces."""
        side = self.sides.get(source)
        if side is not None and side.gone is not None:
            side.value, side.key = side.gone

    def record_delete_context(self, delete: Stamp, seen: int) -> None:
        if self.deletes is NOTHING:
            self.deletes = {}
        self.deletes[delete] = seen

    # ------------------------------------------------------------ rule 1: own write

    def write(self, source: str, change: Change, value: MaybeValue, key: object) -> Write:
        """A genuine edit: dominates exactly what its source had seen."""
        side = self.sides.get(source) or self.side(source)
        seen = side.seen
        bit = self.next
        self.next = bit << 1
        write = Write(bit, source, change, value, key, seen)
        write.inserts = side.inserts
        self.writes[bit] = write
        self.frontier = (self.frontier & ~seen) | bit
        if self.overwritten or self.baselines:
            self.overwritten &= ~seen
            self.baselines &= ~seen
        side.seen = seen | bit
        side.value, side.key, side.by = value, key, change
        side.untouched = False
        return write

    def decide(self, change: Change, value: MaybeValue, key: object) -> Write:
        """A decision has seen every write of the cell."""
        bit = self.next
        self.next = bit << 1
        write = Write(bit, DECISION_SOURCE, change, value, key, bit - 1)
        write.kind = DECIDED
        write.inserts = self._all_inserts()
        self.writes[bit] = write
        self.frontier = bit
        self.overwritten = self.baselines = 0
        self.diverged = ()
        return write

    # ------------------------------------------------------------ rule 2: copies

    def copy(self, source: str, change: Change, what: tuple[MaybeValue, object], holders: Iterable[str]) -> bool:
        """A marked change repeats somebody's write: it teaches, and may overwrite. False when it matched nothing."""
        value, key = what
        matched = self._repeated(change, key)
        learned = 0
        replaced = self._own(source, key)
        side = self.hold(source, change, value, key)
        self._replace_first(source, key)
        teacher = self._teacher(change, key, holders)
        if teacher is not None:
            learned |= teacher.seen
            side.inserts |= teacher.inserts
        for write in matched:
            learned |= write.bit | write.after
            side.inserts |= write.inserts
            self._overwrite(replaced, write)
            self._put_back(write)
        side.seen |= learned
        if not matched:
            self.waiting = (*self.waiting, WaitingCopy(source, change, key, replaced.bit if replaced else 0))
        return bool(matched) or bool(learned)

    def learn_unchanged(self, source: str, change: Change, key: object, holders: Iterable[str]) -> None:
        """A copy that lists a value which its source holds already teaches who wrote it, and replaces nothing. What the
        source it names had seen did not come with it, unless that holds the same."""
        side = self.side(source)
        for write in self._repeated(change, key):
            side.seen |= write.bit | write.after
            side.inserts |= write.inserts
            self._put_back(write)
        teacher = self._teacher(change, key, holders)
        if teacher is not None:
            side.seen |= teacher.seen
            side.inserts |= teacher.inserts

    def _teacher(self, change: Change, key: object, holders: Iterable[str]) -> SourceState | None:
        """The source that a copy names, where that holds the same value."""
        assert change.copy is not None
        named = change.copy.from_source
        return self.sides.get(named) if named is not None and named in holders and self.held(named) == key else None

    def _repeated(self, change: Change, key: object) -> list[Write]:
        """The writes of this field that a copy names; of a copy that names none at all, those of its value."""
        assert change.copy is not None
        places = set(change.copy.of)
        if not places:
            return self._matching(key)
        return [w for w in self.writes.values() if w.kind != BASELINE and w.change.place in places]

    def _matching(self, key: object) -> list[Write]:
        """Every frontier write of that value, else the overwritten ones that nobody has seen since."""
        matched = [w for w in self.of(self.frontier) if w.key == key]
        return matched or [w for w in self.of(self.overwritten) if w.key == key]

    def _own(self, source: str, key: object) -> Write | None:
        """The source's own frontier write that a copy of another value is about to replace."""
        held = self.held(source)
        if not self.traits.overwrites or held == key:
            return None
        for write in self.of(self.frontier):
            if write.source == source and write.key == held:
                return write
        return None

    def _overwrite(self, replaced: Write | None, by: Write) -> None:
        if replaced is None or not by.bit & self.frontier or not replaced.bit & self.frontier:
            return
        if replaced.bit & by.seen or by.bit & replaced.seen:
            return
        self.take_out(replaced)

    def take_out(self, write: Write) -> None:
        """A genuine write leaves the frontier without having been seen by a later one; this leaves a trace."""
        self.frontier &= ~write.bit
        self.overwritten |= write.bit
        if write.kind != BASELINE:
            self.lost_updates = (*self.lost_updates, write)

    def _put_back(self, write: Write) -> None:
        if write.bit & self.overwritten:
            self.overwritten &= ~write.bit
            self.frontier |= write.bit
            self.lost_updates = tuple([lost for lost in self.lost_updates if lost is not write])

    def answer(self, write: Write) -> None:
        """A write that copies were waiting for: each has seen it since the copy, and so has all that rests on it."""
        for waiting in self.waiting:
            if waiting.source == write.source:
                waiting.written |= write.bit
            elif waiting.is_for(write) and not write.seen & waiting.written:
                self.waiting = tuple(w for w in self.waiting if w is not waiting)
                self._seen_since(waiting, write)

    def _seen_since(self, waiting: WaitingCopy, write: Write) -> None:
        learned = write.bit | write.after
        self._overwrite(self.writes.get(waiting.replaced), write)
        taught = self.side(waiting.source)
        taught.seen |= learned
        taught.inserts |= write.inserts
        if not waiting.written:
            return
        for later in self.writes.values():
            if later is not write and later.after & waiting.written:
                later.after |= learned
                if later.bit & waiting.written or later.seen & waiting.written:
                    later.seen |= learned
                    later.inserts |= write.inserts
        for side in self.sides.values():
            if side.seen & waiting.written:
                side.seen |= learned
                side.inserts |= write.inserts
        past = [w.bit for w in self.of(self.frontier & learned & ~waiting.written) if not w.seen & waiting.written]
        self.frontier &= ~sum(past)

    def see_since(self, source: str, at: Stamp, learned: int) -> None:
        """The source has seen these since then: what it has written dominates them."""
        self.side(source).seen |= learned
        for write in self.writes.values():
            if write.source == source and write.stamp > at:
                fresh = learned & ~write.bit
                for other in self.of(fresh & sum(self.writes)):
                    if other.seen & write.bit:
                        fresh &= ~other.bit
                write.seen |= fresh
                write.after |= fresh
                self.frontier &= ~fresh

    def expire(self, now: Stamp, max_ahead_us: int) -> None:
        """Copies that waited long enough teach nothing."""
        self.waiting = tuple(w for w in self.waiting if now.wall_us - w.change.stamp.wall_us <= max_ahead_us)

    # ------------------------------------------------------------ rules 3 and 4

    def agree(self, source: str, holders: Iterable[str]) -> bool:
        """Whoever holds the same value has seen from now on what any of them had seen."""
        mine = self.sides[source]
        key, sides = mine.key, self.sides
        group = [side for t in holders if (side := sides.get(t)) is not None and side.key == key and side is not mine]
        if not group:
            return False
        seen, inserts = mine.seen, mine.inserts
        for side in group:
            seen |= side.seen
            inserts |= side.inserts
        mine.seen, mine.inserts = seen, inserts
        for side in group:
            side.seen, side.inserts = seen, inserts
        return True

    def remember(self, source: str, holders: Iterable[str], *, came: bool) -> None:
        """Note for `agreement: past` what a source has come to hold (`came`: by an edit or a copy); two that hold one value start
        afresh."""
        if self.past is NO_PAST:
            self.past = {}
        side = self.sides[source]
        for other in self.order:
            if came and other != source:
                held = self.past.setdefault((other, source), [])
                held.append((side.key, side.seen))
                del held[:-PAST_VALUES]
        for other in holders:
            if other != source and self.held(other) == side.key:
                if came:
                    self._remember_shared(other, source)
                self.past.pop((other, source), None)
                self.past.pop((source, other), None)

    def _remember_shared(self, holder: str, source: str) -> None:
        """Whoever held what somebody else has come to hold has held that write too."""
        side = self.sides[holder]
        for other in self.order:
            held = self.past.setdefault((other, holder), []) if other not in (holder, source) else []
            if not held or held[-1][0] != side.key:
                held.append((side.key, side.seen))
                del held[:-PAST_VALUES]

    def late_copy(self, source: str, change: Change, value: MaybeValue, holders: Iterable[str]) -> bool:
        """An unmarked edit to a value that another source has held since the two last agreed, and holds no longer, is a late copy of
        it (`agreement: past`). True when it was one."""
        key = self.keyed(value)
        others = [t for t in holders if t != source and self.held(t) != key]
        learned = [(t, seen) for t in others for k, seen in self.past.get((source, t), ()) if k == key]
        if not learned:
            return False
        replaced = self._own(source, key)
        side = self.hold(source, change, value, key)
        self._replace_first(source, key)
        taught = 0
        for teacher, seen in learned:
            taught |= seen
            side.inserts |= self.sides[teacher].inserts
        side.seen |= taught
        originals = [w for w in self.of((self.frontier | self.overwritten) & taught) if w.key == key]
        if originals:
            original = max(originals, key=lambda w: w.stamp)
            self._overwrite(replaced, original)
            self._put_back(original)
        return True

    def agree_with_decision(self, decision: Write, holders: Iterable[str]) -> None:
        for source in holders:
            side = self.sides.get(source)
            if side is not None and side.key == decision.key:
                side.seen, side.inserts = decision.after, decision.inserts

    def apply_consensus(self, holders: tuple[str, ...], *, bound: object = MISSING) -> None:
        """Rule 4: the one value that every holder holds is the value; writes of other values are overwritten."""
        key = self.held(holders[0])
        if key is MISSING:
            return
        for source in holders:
            if self.held(source) != key:
                return
        losers = [w for w in self.of(self.frontier) if w.key != key]
        if any(w.kind == DECIDED for w in losers):
            return
        everything, inserts = self.everything, self._all_inserts()
        for source in holders:
            side = self.sides[source]
            side.seen, side.inserts = everything, inserts
        if bound is MISSING or bound == key:
            for write in losers:
                self.take_out(write)
                self._overrule(write, holders)

    def _overrule(self, write: Write, holders: tuple[str, ...]) -> None:
        """Whose row is away for itself only may bring the write back."""
        for source, side in self.sides.items():
            if side.key == write.key and source not in holders:
                side.overruled |= write.bit

    def _all_inserts(self) -> frozenset[Insert]:
        found = NO_INSERTS
        for side in self.sides.values():
            found |= side.inserts
        for write in self.writes.values():
            found |= write.inserts
        return found

    # ------------------------------------------------------------ snapshots

    def read_first(self, source: str, change: Change, value: MaybeValue, *, candidate: bool) -> bool:
        """A snapshot value. `candidate`: it may stand against a first insert elsewhere (§4). False when it is not the first."""
        key = self.keyed(value)
        side = self.hold(source, change, value, key)
        if side.first_key is not MISSING:
            self._replace_first(source, key)
            return False
        side.first, side.first_key, side.untouched, side.over = value, key, True, False
        if candidate and value is not None and value is not UNKNOWN and value is not ABSENT:
            self._baseline(source, change, value, key)
        return True

    def _replace_first(self, source: str, key: object) -> None:
        """The source no longer holds its first-snapshot value: that will stand against no insert any more."""
        side = self.sides[source]
        side.untouched = side.untouched and side.first_key == key
        for write in self.of(self.baselines):
            if write.source == source and write.key != key:
                self.baselines &= ~write.bit

    def wake(self, source: str, holders: tuple[str, ...]) -> int:
        """A first insert came: the first-snapshot values that others still hold are inserts which nobody has seen (§4), and join
        the frontier. The mask of those that did."""
        woken = 0
        for baseline in self.of(self.baselines & ~self.seen(source)):
            if baseline.source != source and baseline.source in holders:
                woken |= baseline.bit
        self.baselines &= ~woken
        self.frontier |= woken
        return woken

    def learn_inserts(self, source: str, teacher: str, until: Stamp) -> None:
        """What the teacher's values went back to until then: a new life that has seen its delete has seen these too."""
        behind = self.sides.get(teacher)
        if behind is not None:
            self.side(source).inserts |= {insert for insert in behind.inserts if insert.stamp <= until}

    def see_all(self, source: str) -> None:
        """A delete that wins dominates what it had not seen."""
        side = self.side(source)
        side.seen, side.inserts = self.everything, self._all_inserts()

    def see_baselines(self, source: str) -> None:
        """A re-insert has seen every first-snapshot value (§4)."""
        side = self.side(source)
        for write in self.writes.values():
            if write.kind == BASELINE:
                side.seen |= write.bit

    def _baseline(self, source: str, change: Change, value: MaybeValue, key: object) -> None:
        side = self.sides[source]
        bit = self.next
        self.next = bit << 1
        write = Write(bit, source, change, value, key, side.seen)
        write.kind = BASELINE
        over = self._has_been_written_over(key)
        side.baseline = Insert(change.stamp, first=True, baseline=True)
        write.inserts = frozenset((side.baseline,))
        self.writes[bit] = write
        side.seen |= bit
        side.inserts |= write.inserts
        for other in self.writes.values():
            if other.kind == BASELINE and other.key == key and other is not write:
                side.seen |= other.bit
                self.sides[other.source].seen |= bit
        for equal in self.sides.values():
            if equal.first_key == key and equal.baseline is not None:
                side.inserts |= {equal.baseline}
                equal.inserts |= write.inserts
        equals = {s for s, equal in self.sides.items() if equal.first_key == key}
        for earlier in self.writes.values():
            if earlier.source in equals:
                earlier.inserts |= write.inserts
        if not over:
            self.baselines |= bit

    def _has_been_written_over(self, key: object) -> bool:
        """Somebody whose first snapshot was the same has written on it since: that write has seen this value."""
        equals = {side.baseline for side in self.sides.values() if side.first_key == key} - {None}
        return any(write.inserts & equals for write in self.of(self.frontier | self.overwritten))
