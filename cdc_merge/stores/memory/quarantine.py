"""Changes whose records nobody knows yet, in memory; see ports.StoreTransaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from cdc_merge.model import UnresolvedChange

Kept = tuple[tuple[str, UnresolvedChange], ...]
"""Source and change, in the order in which they came."""


class Quarantine:
    """One transaction's view of what is kept: nothing but `kept` is changed."""

    def __init__(self, kept: Kept) -> None:
        self.kept = kept

    def quarantine(self, source: str, waiting: Iterable[UnresolvedChange]) -> None:
        for new in waiting:
            row = (source, new.label, new.was)
            renamed = [
                (of, each._replace(identity=new.identity) if (of, each.label, each.identity) == row else each)
                for of, each in self.kept
            ]
            self.kept = (*renamed, (source, new))

    def release_quarantined(
        self, source: str, label: str, identities: Iterable[str]
    ) -> Mapping[str, list[UnresolvedChange]]:
        wanted = set(identities)
        taken: dict[str, list[UnresolvedChange]] = {}
        for each in self._drop(lambda of, w: of == source and w.label == label and w.identity in wanted):
            taken.setdefault(each[1].identity, []).append(each[1])
        return taken

    def forget_quarantined(self, source: str, entity: str, table: str) -> int:
        gone = (source, entity, table)
        return len(self._drop(lambda of, w: (of, w.change.entity, w.change.place.table) == gone))

    def forget_quarantined_of(self, source: str) -> None:
        self._drop(lambda of, _: of == source)

    def forget_quarantined_before(self, wall_us: int) -> Mapping[tuple[str, str], int]:
        return counts(self._drop(lambda _, w: w.change.stamp.wall_us < wall_us))

    def awaited_identities(self, source: str) -> Mapping[str, frozenset[tuple[str, ...]]]:
        return awaited(self.kept).get(source, {})

    def _drop(self, is_gone: Callable[[str, UnresolvedChange], bool]) -> Kept:
        gone = tuple(each for each in self.kept if is_gone(*each))
        self.kept = tuple(each for each in self.kept if not is_gone(*each))
        return gone


def counts(kept: Kept) -> Mapping[tuple[str, str], int]:
    """Source and table → how many."""
    return dict(Counter((source, waiting.change.place.table) for source, waiting in kept))


def awaited(kept: Kept) -> Mapping[str, Mapping[str, frozenset[tuple[str, ...]]]]:
    """Source → label → the columns by which waiting rows are named."""
    found: dict[str, dict[str, frozenset[tuple[str, ...]]]] = {}
    for source, waiting in kept:
        of_source = found.setdefault(source, {})
        of_source[waiting.label] = of_source.get(waiting.label, frozenset()) | {waiting.columns}
    return found
