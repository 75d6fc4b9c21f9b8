"""A store in memory, for tests, rehearsals and pure replays; nothing survives the process.

Rules: the same contract as the stores on disk. A transaction works on copies and publishes them in one step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from cdc_merge.errors import NotFound, StoreUnavailable
from cdc_merge.model import Change, Checkpoint, Conflict, Missing, Position, RecordKey, Stamp, StoreFigures
from cdc_merge.model.ports import PRUNED_SLOT
from cdc_merge.model.source_commands import SourceOrders
from cdc_merge.stores.conflict_filters import CLOSED, FILTERS, OPEN, matches
from cdc_merge.stores.memory.disk import Disk, newest_before, ordered_trail
from cdc_merge.stores.memory.quarantine import awaited, counts
from cdc_merge.stores.memory.transaction import MemoryTransaction


class MemoryStore:
    """ports.Store over a `Disk`, its own unless one is given."""

    def __init__(self, disk: Disk | None = None) -> None:
        self._disk = Disk() if disk is None else disk
        self._closed = False

    def claim(self, owner: str) -> None:
        with self._disk.lock:
            self._refuse_when_closed()
            if self._disk.claimed not in (None, (self, owner)):
                raise StoreUnavailable(
                    f"the store is held by {self._disk.claimed[1]}",
                    hint="One worker writes to a store; close it before another one claims it.",
                )
            self._disk.claimed = (self, owner)

    @contextmanager
    def transaction(self) -> Iterator[MemoryTransaction]:
        with self._disk.writing:
            if self._disk.claimed is None or self._disk.claimed[0] is not self:
                self.claim("no name given")
            batch = MemoryTransaction(self._disk)
            yield batch
            batch.publish()

    def positions(self) -> Mapping[str, tuple[Position, Stamp]]:
        with self._reading() as disk:
            return dict(disk.positions)

    def orders(self) -> Mapping[str, SourceOrders]:
        with self._reading() as disk:
            return dict(disk.orders)

    def history(self, record: RecordKey) -> list[Change]:
        with self._reading() as disk:
            return ordered_trail(disk.trails.get(record, {}))

    def history_page(self, record: RecordKey, after: tuple[Stamp, int] | None, limit: int) -> list[Change]:
        history = self.history(record)
        if after is not None:
            stamp, count = after
            history = [change for change in history if change.stamp >= stamp][count:]
        return history[:limit]

    def folded(
        self, record: RecordKey, until: Stamp | None = None, *, whole: bool = False
    ) -> tuple[Checkpoint | None, list[Change]]:
        with self._reading() as disk:
            slots = disk.checkpoints.get(record, {})
            checkpoint = (None if whole else newest_before(slots, until)) or slots.get(PRUNED_SLOT)
            return checkpoint, ordered_trail(disk.trails.get(record, {}), checkpoint.stamp if checkpoint else None)

    def records(self, entity: str, after: str | None, limit: int) -> list[str]:
        with self._reading() as disk:
            keys = (key for name, key in disk.trails if name == entity and (after is None or key > after))
            return sorted(keys)[:limit]

    def conflict(self, conflict_id: str) -> Conflict | None:
        with self._reading() as disk:
            return disk.conflicts.get(conflict_id)

    def conflicts(self, where: Mapping[str, str], after: str | None, limit: int) -> list[Conflict]:
        """As ports.Store says; NotFound when `after` is no conflict's id."""
        assert where.keys() <= FILTERS.keys(), f"no such filters: {sorted(where.keys() - FILTERS.keys())}"
        with self._reading() as disk:
            ids = list(disk.conflicts)
            if after is not None and after not in disk.conflicts:
                raise NotFound("Invalid cursor: there is no such conflict.", hint="Start again without a cursor.")
            begin = 0 if after is None else ids.index(after) + 1
            following = (disk.conflicts[each] for each in ids[begin:])
            return [conflict for conflict in following if matches(conflict, where)][:limit]

    def unfinished_conflicts(self) -> Iterator[Conflict]:
        with self._reading() as disk:
            unfinished = [conflict for conflict in disk.conflicts.values() if conflict.status != CLOSED]
        yield from unfinished

    def awaited_identities(self) -> Mapping[str, Mapping[str, frozenset[tuple[str, ...]]]]:
        with self._reading() as disk:
            return awaited(disk.parked)

    def parked(self) -> Mapping[tuple[str, str], int]:
        with self._reading() as disk:
            return counts(disk.parked)

    def deadlines(self) -> Mapping[RecordKey, int]:
        with self._reading() as disk:
            return dict(disk.deadlines)

    def evaluated(self) -> Mapping[str, tuple[str, str | None]]:
        with self._reading() as disk:
            return dict(disk.evaluated)

    def missing(self, where: tuple[str, str | None], after: str | None, limit: int) -> list[Missing]:
        entity, source = where
        with self._reading() as disk:
            keys = sorted(key for key in disk.missing if key.entity == entity and (after is None or key.key > after))
            by_record = [[Missing(*key, *each) for each in sorted(disk.missing[key].items())] for key in keys]
        selected = [[each for each in record if source in (None, each.source)] for record in by_record]
        return [each for record in [record for record in selected if record][:limit] for each in record]

    def lost(self) -> frozenset[str]:
        with self._reading() as disk:
            return frozenset(disk.lost)

    def figures(self) -> StoreFigures:
        with self._reading() as disk:
            history_changes = sum(map(len, disk.trails.values()))
            open_conflicts = [conflict for conflict in disk.conflicts.values() if conflict.status == OPEN]
        count: dict[tuple[str, str, str], int] = {}
        oldest: dict[tuple[str, str], int] = {}
        for conflict in open_conflicts:
            detected = conflict.detected
            group = (detected.entity, detected.kind, detected.severity)
            age_group = (detected.entity, detected.severity)
            count[group] = count.get(group, 0) + 1
            oldest[age_group] = min(conflict.raised_us, oldest.get(age_group, conflict.raised_us))
        missing = Counter((key.entity, source) for key, sources in disk.missing.items() for source in sources)
        return StoreFigures(
            history_changes=history_changes,
            conflicts_open=count,
            oldest_open_us=oldest,
            missing=dict(missing),
            parked=self.parked(),
        )

    def close(self) -> None:
        """Release the claim; the disk stays for the next store on it."""
        with self._disk.writing, self._disk.lock:
            self._closed = True
            if self._disk.claimed and self._disk.claimed[0] is self:
                self._disk.claimed = None

    @contextmanager
    def _reading(self) -> Iterator[Disk]:
        with self._disk.lock:
            self._refuse_when_closed()
            yield self._disk

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed", hint="Retry when the sidecar is running.")
