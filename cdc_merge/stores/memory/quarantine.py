"""The quarantine of unresolved business keys, in memory; see ports.QuarantineStore."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from cdc_merge.model import UnresolvedChange

Quarantined = tuple[tuple[str, UnresolvedChange], ...]
"""Source and change, in the order of arrival."""


class QuarantineList:
    """One transaction's view of the quarantine; only `quarantined` changes."""

    def __init__(self, quarantined: Quarantined) -> None:
        self.quarantined = quarantined

    def quarantine(self, source: str, waiting: Iterable[UnresolvedChange]) -> None:
        for new in waiting:
            row = (source, new.label, new.was)
            renamed = [
                (of, each._replace(identity=new.identity) if (of, each.label, each.identity) == row else each)
                for of, each in self.quarantined
            ]
            self.quarantined = (*renamed, (source, new))

    def release_quarantined(
        self, source: str, label: str, identities: Iterable[str]
    ) -> Mapping[str, list[UnresolvedChange]]:
        resolved = set(identities)
        released: dict[str, list[UnresolvedChange]] = {}
        for _, change in self._drop(lambda of, w: of == source and w.label == label and w.identity in resolved):
            released.setdefault(change.identity, []).append(change)
        return released

    def forget_quarantined(self, source: str, entity: str, table: str) -> int:
        truncated = (source, entity, table)
        return len(self._drop(lambda of, w: (of, w.change.entity, w.change.place.table) == truncated))

    def forget_quarantined_of(self, source: str) -> None:
        self._drop(lambda of, _: of == source)

    def forget_quarantined_before(self, wall_us: int) -> Mapping[tuple[str, str], int]:
        return counts(self._drop(lambda _, w: w.change.stamp.wall_us < wall_us))

    def awaited_identities(self, source: str) -> Mapping[str, frozenset[tuple[str, ...]]]:
        return awaited(self.quarantined).get(source, {})

    def _drop(self, leaves: Callable[[str, UnresolvedChange], bool]) -> Quarantined:
        dropped = tuple(each for each in self.quarantined if leaves(*each))
        self.quarantined = tuple(each for each in self.quarantined if not leaves(*each))
        return dropped


def counts(quarantined: Quarantined) -> Mapping[tuple[str, str], int]:
    """(source, table) → the number of quarantined changes."""
    return dict(Counter((source, waiting.change.place.table) for source, waiting in quarantined))


def awaited(quarantined: Quarantined) -> Mapping[str, Mapping[str, frozenset[tuple[str, ...]]]]:
    """Source → label → the column sets that identify the quarantined rows."""
    columns: dict[str, dict[str, frozenset[tuple[str, ...]]]] = {}
    for source, waiting in quarantined:
        of_source = columns.setdefault(source, {})
        of_source[waiting.label] = of_source.get(waiting.label, frozenset()) | {waiting.columns}
    return columns
