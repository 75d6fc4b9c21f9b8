"""The state of one unit (a field, a group or a map key) of one record: a multi-value register with causal contexts.

Data structure: a dotted version set kept as bit masks. Every write is a dot, which is one bit; a context is the mask of the
writes that a source has seen. The frontier is the mask of the writes that no later write has seen.

Rules (semantics §2, this module and nowhere else): a genuine write dominates its source's context; a copy joins the
context of the write that it repeats; sources that hold one value join their contexts; a value that all holders share
overwrites the others. First-snapshot values are baselines.py, copies that arrive before their original are
waiting_copies.py, unmarked and late ones late_copies.py, and what may be forgotten is compaction.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cdc_merge.merge.writes import (
    BASELINE,
    DECIDED,
    MISSING,
    NO_DELETE_CONTEXTS,
    NO_INSERTS,
    NO_PAST,
    Insert,
    SourceState,
    Traits,
    WaitingCopy,
    Write,
)
from cdc_merge.model import DECISION_SOURCE, UNKNOWN, Change, MaybeValue, Stamp


class UnitState:
    """The writes of one unit and the state of each source.

    `writes`: the kept writes by bit; `next_bit`: the bit of the next one. Masks over them: `frontier`; `overwritten`:
    writes that a copy or a consensus has replaced before another writer saw them; `baselines`: first-snapshot values that
    are neither replaced nor met by an insert; `resets`: resets of a counter or log that no other reset has seen.
    `by_source`: source → its value and context, `order`: the sources that map the unit. `deletes`: the context of each
    delete that still counts. `waiting_copies`: copies whose original has not arrived. `diverged`: pairs of sources that
    differed at their first snapshot and have not held one value since. `past_values`: for (s, t) what t has held since
    the two last held one value (`agreement: past`). `lost_updates`: overwritten writes that no conflict reports yet.
    `always_checked`: conflicts are possible without concurrent writes. `delta_base`: what the deltas of a counter or log add
    to while there is no reset, UNKNOWN before the first of them. `type_state`: a merge type's own state."""

    __slots__ = (
        "always_checked",
        "baselines",
        "by_source",
        "deletes",
        "delta_base",
        "diverged",
        "frontier",
        "key_of",
        "lost_updates",
        "next_bit",
        "order",
        "overwritten",
        "past_values",
        "resets",
        "traits",
        "type_state",
        "waiting_copies",
        "writes",
    )

    def __init__(self, traits: Traits, key_of: Callable[[Any], object], order: tuple[str, ...]) -> None:
        self.traits = traits
        self.order = order
        self.key_of = key_of
        self.writes: dict[int, Write] = {}
        self.next_bit = 1
        self.frontier = 0
        self.overwritten = 0
        self.baselines = 0
        self.resets = 0
        self.delta_base: MaybeValue = UNKNOWN
        self.by_source: dict[str, SourceState] = {}
        self.deletes: dict[Stamp, int] = NO_DELETE_CONTEXTS
        self.past_values: dict[tuple[str, str], list[tuple[object, int]]] = NO_PAST
        self.waiting_copies: tuple[WaitingCopy, ...] = ()
        self.lost_updates: tuple[Write, ...] = ()
        self.diverged: tuple[tuple[str, str], ...] = ()
        self.always_checked = False
        self.type_state: Any = None

    # ------------------------------------------------------------ reading

    def writes_in(self, mask: int) -> Iterator[Write]:
        """The writes of a mask, in no particular order."""
        while mask:
            bit = mask & -mask
            yield self.writes[bit]
            mask ^= bit

    def frontier_writes(self) -> list[Write]:
        """The frontier in stamp order."""
        if not self.frontier & (self.frontier - 1):
            return [self.writes[self.frontier]] if self.frontier else []
        return sorted(self.writes_in(self.frontier), key=lambda w: w.change.stamp)

    @property
    def all_writes(self) -> int:
        """The context that contains every write so far."""
        return self.next_bit - 1

    # ------------------------------------------------------------ values at the sources

    def at(self, source: str) -> SourceState:
        """The source's state, created where there is none."""
        at_source = self.by_source.get(source)
        if at_source is None:
            at_source = self.by_source[source] = SourceState()
        return at_source

    def key_at(self, source: str) -> object:
        """The comparison key of the value at a source, MISSING when the value is unknown."""
        at_source = self.by_source.get(source)
        return MISSING if at_source is None else at_source.key

    def value_at(self, source: str) -> MaybeValue:
        at_source = self.by_source.get(source)
        return UNKNOWN if at_source is None else at_source.value

    def seen_by(self, source: str) -> int:
        at_source = self.by_source.get(source)
        return 0 if at_source is None else at_source.seen

    def set_value(self, source: str, change: Change, value: MaybeValue, key: object) -> SourceState:
        """Note a value at a source; its context stays."""
        at_source = self.at(source)
        at_source.value, at_source.key, at_source.set_by = value, key, change
        return at_source

    def clear_value(self, source: str) -> None:
        """The source's row is deleted: no value is left there. Its context stays."""
        at_source = self.by_source.get(source)
        if at_source is not None:
            at_source.before_delete = at_source.value, at_source.key
            at_source.value, at_source.key = UNKNOWN, MISSING
            self.retire_snapshot_value(source, MISSING)
        if self.diverged:
            self.diverged = tuple([pair for pair in self.diverged if source not in pair])

    def restore_before_delete(self, source: str) -> None:
        """A marked insert overwrote the source's delete: it replaces the value from before the delete."""
        at_source = self.by_source.get(source)
        if at_source is not None and at_source.before_delete is not None:
            at_source.value, at_source.key = at_source.before_delete

    def note_local_delete(self, source: str) -> None:
        """The row is deleted for its source only: its last value shows, when the row returns, what is an edit."""
        at_source = self.by_source.get(source)
        if at_source is not None:
            at_source.untouched, at_source.overruled = False, 0

    def restore_overruled(self, source: str) -> None:
        """The row returned with its last value: a write of it that rule 4 overwrote meanwhile stands again."""
        at_source = self.by_source[source]
        for write in self.writes_in(at_source.overruled & self.overwritten):
            self.return_to_frontier(write)
        at_source.overruled = 0

    def retire_snapshot_value(self, source: str, key: object) -> None:
        """The source holds another value than at its first snapshot: that one stands against no insert any more."""
        at_source = self.by_source[source]
        at_source.untouched = at_source.untouched and at_source.snapshot_key == key
        for write in self.writes_in(self.baselines):
            if write.source == source and write.key != key:
                self.baselines &= ~write.bit

    def record_delete_context(self, delete: Stamp, seen: int) -> None:
        if self.deletes is NO_DELETE_CONTEXTS:
            self.deletes = {}
        self.deletes[delete] = seen

    # ------------------------------------------------------------ rule 1: own write

    def add_write(self, source: str, change: Change, value: MaybeValue, key: object) -> Write:
        """A genuine edit: it dominates exactly the context of its source."""
        at_source = self.by_source.get(source) or self.at(source)
        seen = at_source.seen
        bit = self.next_bit
        self.next_bit = bit << 1
        write = Write(bit, source, change, value, key, seen)
        write.inserts = at_source.inserts
        self.writes[bit] = write
        self.frontier = (self.frontier & ~seen) | bit
        if self.overwritten or self.baselines:
            self.overwritten &= ~seen
            self.baselines &= ~seen
        at_source.seen = seen | bit
        at_source.value, at_source.key, at_source.set_by = value, key, change
        at_source.untouched = False
        return write

    def add_decision(self, change: Change, value: MaybeValue, key: object) -> Write:
        """A decision dominates every write of the unit."""
        bit = self.next_bit
        self.next_bit = bit << 1
        write = Write(bit, DECISION_SOURCE, change, value, key, bit - 1)
        write.kind = DECIDED
        write.inserts = self._all_inserts()
        self.writes[bit] = write
        self.frontier = bit
        self.overwritten = self.baselines = 0
        self.diverged = ()
        return write

    # ------------------------------------------------------------ rule 2: copies

    def apply_copy(
        self, source: str, change: Change, copied: tuple[MaybeValue, object], holders: Iterable[str]
    ) -> bool:
        """A marked change repeats a write, with its (value, key): its source joins the context of the original, and the
        copy may overwrite the source's own concurrent write. False when there is no original."""
        value, key = copied
        originals = self._originals(change, key)
        learned = 0
        replaced = self.own_frontier_write(source, key)
        at_source = self.set_value(source, change, value, key)
        self.retire_snapshot_value(source, key)
        origin = self._named_holder(change, key, holders)
        if origin is not None:
            learned |= origin.seen
            at_source.inserts |= origin.inserts
        for original in originals:
            learned |= original.bit | original.after
            at_source.inserts |= original.inserts
            self.overwrite_if_concurrent(replaced, original)
            self.return_to_frontier(original)
        at_source.seen |= learned
        if not originals:
            waiting = WaitingCopy(source, change, key, replaced.bit if replaced else 0)
            self.waiting_copies = (*self.waiting_copies, waiting)
        return bool(originals) or bool(learned)

    def apply_unchanged_copy(self, source: str, change: Change, key: object, holders: Iterable[str]) -> None:
        """A copy of a value that its source already holds joins the originals' contexts and replaces nothing. It joins
        the context of the source that it names only if that source holds the same value."""
        at_source = self.at(source)
        for original in self._originals(change, key):
            at_source.seen |= original.bit | original.after
            at_source.inserts |= original.inserts
            self.return_to_frontier(original)
        origin = self._named_holder(change, key, holders)
        if origin is not None:
            at_source.seen |= origin.seen
            at_source.inserts |= origin.inserts

    def _named_holder(self, change: Change, key: object, holders: Iterable[str]) -> SourceState | None:
        """The source that a copy names, where that source holds the same value."""
        assert change.copy is not None
        named = change.copy.from_source
        return self.by_source[named] if named is not None and named in holders and self.key_at(named) == key else None

    def _originals(self, change: Change, key: object) -> list[Write]:
        """The writes of this unit that a copy names by place. Of a copy that names none: every frontier write of its
        value, else the overwritten ones."""
        assert change.copy is not None
        places = set(change.copy.of)
        if places:
            return [w for w in self.writes.values() if w.kind != BASELINE and w.change.place in places]
        matched = [w for w in self.writes_in(self.frontier) if w.key == key]
        return matched or [w for w in self.writes_in(self.overwritten) if w.key == key]

    def own_frontier_write(self, source: str, key: object) -> Write | None:
        """The source's own frontier write that a copy of another value is about to replace."""
        own_key = self.key_at(source)
        if not self.traits.overwrites or own_key == key:
            return None
        for write in self.writes_in(self.frontier):
            if write.source == source and write.key == own_key:
                return write
        return None

    def overwrite_if_concurrent(self, replaced: Write | None, by: Write) -> None:
        if replaced is None or not by.bit & self.frontier or not replaced.bit & self.frontier:
            return
        if replaced.bit & by.seen or by.bit & replaced.seen:
            return
        self.overwrite(replaced)

    def overwrite(self, write: Write) -> None:
        """A genuine write leaves the frontier although no later write has seen it: a lost update."""
        self.frontier &= ~write.bit
        self.overwritten |= write.bit
        if write.kind != BASELINE:
            self.lost_updates = (*self.lost_updates, write)

    def return_to_frontier(self, write: Write) -> None:
        if write.bit & self.overwritten:
            self.overwritten &= ~write.bit
            self.frontier |= write.bit
            self.lost_updates = tuple([lost for lost in self.lost_updates if lost is not write])

    # ------------------------------------------------------------ rules 3 and 4: agreement, consensus

    def agree(self, source: str, holders: Iterable[str]) -> bool:
        """The holders of the source's value join their contexts. False when the source is alone with its value."""
        mine = self.by_source[source]
        key, states = mine.key, self.by_source
        equal = [each for t in holders if (each := states.get(t)) is not None and each.key == key and each is not mine]
        if not equal:
            return False
        seen, inserts = mine.seen, mine.inserts
        for each in equal:
            seen |= each.seen
            inserts |= each.inserts
        mine.seen, mine.inserts = seen, inserts
        for each in equal:
            each.seen, each.inserts = seen, inserts
        return True

    def agree_with_decision(self, decision: Write, holders: Iterable[str]) -> None:
        for source in holders:
            at_source = self.by_source.get(source)
            if at_source is not None and at_source.key == decision.key:
                at_source.seen, at_source.inserts = decision.after, decision.inserts

    def apply_consensus(self, holders: tuple[str, ...], *, bound: object = MISSING) -> None:
        """Rule 4: the one value that all holders share is the value; frontier writes of other values are overwritten."""
        key = self.key_at(holders[0])
        if key is MISSING:
            return
        for source in holders:
            if self.key_at(source) != key:
                return
        losers = [w for w in self.writes_in(self.frontier) if w.key != key]
        if any(w.kind == DECIDED for w in losers):
            return
        all_writes, inserts = self.all_writes, self._all_inserts()
        for source in holders:
            at_source = self.by_source[source]
            at_source.seen, at_source.inserts = all_writes, inserts
        if bound is MISSING or bound == key:
            for write in losers:
                self.overwrite(write)
                self._note_overruled(write, holders)

    def _note_overruled(self, write: Write, holders: tuple[str, ...]) -> None:
        """A source whose row is deleted locally may bring the write back."""
        for source, at_source in self.by_source.items():
            if at_source.key == write.key and source not in holders:
                at_source.overruled |= write.bit

    # ------------------------------------------------------------ inserts

    def join_inserts(self, source: str, other: str, until: Stamp) -> None:
        """A new incarnation that has seen the other source's delete has also seen the inserts behind its values until then."""
        deleted = self.by_source.get(other)
        if deleted is not None:
            self.at(source).inserts |= {insert for insert in deleted.inserts if insert.stamp <= until}

    def see_everything(self, source: str) -> None:
        """A delete that wins dominates also what it had not seen."""
        at_source = self.at(source)
        at_source.seen, at_source.inserts = self.all_writes, self._all_inserts()

    def _all_inserts(self) -> frozenset[Insert]:
        inserts = NO_INSERTS
        for at_source in self.by_source.values():
            inserts |= at_source.inserts
        for write in self.writes.values():
            inserts |= write.inserts
        return inserts
