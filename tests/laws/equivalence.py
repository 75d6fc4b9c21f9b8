"""The equivalence laws' harness: implementations of the merge × worlds; each answers like the full fold, wherever it answers.

`IMPLEMENTATIONS`: the ways to a record that must make no difference, among them the oracle, a second implementation. `WORLDS`: the
exhaustive generators; `scripts` (worlds.py) samples longer stories. `check` runs one implementation on one world. A test
module holds only its laws: which implementation, on which worlds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import cycle, islice, product
from typing import Any, Final, NamedTuple, TypeAlias

from cdc_merge.history.order import ordered
from cdc_merge.merge.checkpoint import dump_state, load_state
from cdc_merge.merge.conflict_detection import merge_conflicts
from cdc_merge.merge.explain import explain, explain_in_one_pass
from cdc_merge.merge.fold import MAX_AHEAD_US, advance, fold
from cdc_merge.merge.record_state import Record
from cdc_merge.merge.replay import policy_of
from cdc_merge.merge.units import Units
from cdc_merge.merge.views import merged
from cdc_merge.merge.writes import LIMITS, CompactionLimits
from cdc_merge.model import Change, Checkpoint, RecordKey
from cdc_merge.model.plan import EntityPlan, Plan
from cdc_merge.model.ports import Store
from cdc_merge.queries.store_queries import StoreQueries
from cdc_merge.stores.memory.store import MemoryStore
from cdc_merge.stores.row_codec import decode_checkpoint, encode_checkpoint
from cdc_merge.worker.limits import Limits
from cdc_merge.worker.record_cache import RecordCache
from tests.laws.comparable import merge_answer, oracle_answer
from tests.laws.oracle import answer as answer_of_oracle
from tests.laws.worlds import (
    ALPHABETS,
    ENTITY,
    KEY,
    SKEWS,
    STEPS,
    USUAL,
    World,
    alphabet_steps,
    perform,
    small_worlds,
)

Case: TypeAlias = tuple[EntityPlan, list[Change]]
Answers: TypeAlias = Iterator[tuple[int, Any]]
"""(number of changes in stamp order, the answer after them)."""
Read: TypeAlias = Callable[[EntityPlan, Record], Any]

THE_RECORD: Final = RecordKey(ENTITY, KEY)
ALWAYS: Final = CompactionLimits(writes=0, inserts=LIMITS.inserts, dumped=LIMITS.dumped)
OFTEN: Final = ALWAYS._replace(writes=3)
# A unit state is compacted as soon as it has two writes, so that a checkpoint has forgotten all that it ever will.
AT_ONCE: Final = CompactionLimits(writes=1, inserts=0, dumped=0)
CHECKPOINTS_SOON: Final = Limits(checkpoint_after=2, checkpoint_when_read=1)


def in_words(changes: Iterable[Change]) -> str:
    """The script in words, for the report of a disagreement."""
    lines = []
    for change in sorted(changes, key=lambda change: change.stamp):
        values = {name: after for name, (_, after) in change.fields.items()}
        mark = f" {change.copy}" if change.copy else ""
        at = f"{change.stamp.wall_us % 1_000_000_000 / 1e6:g}.{change.stamp.counter}"
        lines.append(f"{at} {change.stamp.source} {change.operation}{mark} {values}")
    return "\n" + "\n".join(lines)


# ---------------------------------------------------------------- what is compared


def exact_answer(entity: EntityPlan, record: Record) -> Any:
    return merged(record), merge_conflicts(record)


def merged_record(entity: EntityPlan, record: Record) -> Any:
    return merged(record)


def explanations(entity: EntityPlan, record: Record) -> Any:
    return {field: explain(record, field) for field in _explained_fields(entity, record)}


def _explained_fields(entity: EntityPlan, record: Record) -> list[str]:
    names = {*record.unit_states, *entity.groups} or {*entity.fields}
    return [field for field in sorted(names) if field in record.unit_of or field in record.units.by_name]


# ---------------------------------------------------------------- implementations


class Run(NamedTuple):
    """One run of an implementation. `cuts`: where it does what it does now and then. `read`: the answer of a record."""

    entity: EntityPlan
    changes: Sequence[Change]
    cuts: Sequence[int]
    read: Read


def _oracle(run: Run) -> Answers:
    yield len(ordered(run.changes)), oracle_answer(run.entity, answer_of_oracle(run.entity, run.changes))


def _shuffled(run: Run) -> Answers:
    """Any order of arrival, and half of the changes twice."""
    dice = random.Random(len(run.changes))
    arrived = [*run.changes, *dice.sample(run.changes, len(run.changes) // 2)]
    dice.shuffle(arrived)
    yield len(run.changes), run.read(run.entity, fold(run.entity, arrived))


def _compacting(limits: CompactionLimits) -> Callable[[Run], Answers]:
    def answers(run: Run) -> Answers:
        record = fold(Units(run.entity, limits), run.changes, compacts=True)
        yield len(ordered(run.changes)), run.read(run.entity, record)

    return answers


def _advancing(limits: CompactionLimits) -> Callable[[Run], Answers]:
    """A compacting fold of the changes up to the first cut, advanced by the others one by one; conflicts are read after each."""

    def answers(run: Run) -> Answers:
        history, split = ordered(run.changes), run.cuts[0]
        record = fold(Units(run.entity, limits), history[:split], compacts=True)
        record.key = KEY
        for change in history[split:]:
            assert advance(record, change)
            merge_conflicts(record)
        yield len(history), run.read(run.entity, record)

    return answers


def through_a_checkpoint(record: Record) -> Record:
    """Dumped, packed, unpacked and loaded."""
    _, _, tree = decode_checkpoint(encode_checkpoint(1, "policy", dump_state(record)))
    return load_state(record.units, tree, key=KEY, max_ahead_us=MAX_AHEAD_US)


def _checkpointed(run: Run) -> Answers:
    """Through a checkpoint before the first change and at each of the cuts; read after every change."""
    units = Units(run.entity, AT_ONCE)
    record = through_a_checkpoint(Record(units, KEY, max_ahead_us=MAX_AHEAD_US, compacts=True))
    for number, change in enumerate(ordered(run.changes)):
        if number in run.cuts:
            record = through_a_checkpoint(record)
        assert advance(record, change)
        yield number + 1, run.read(run.entity, record)


def plan_of(entity: EntityPlan, policy: str = "one") -> Plan:
    return Plan({entity.name: entity}, (), policy=policy)


def merge_batch(cache: RecordCache, store: Store, changes: Iterable[Change]) -> None:
    """One batch, as the pipeline makes it."""
    cache.begin()
    with store.transaction() as tx:
        cache.apply(list(changes), tx)
        cache.refold(tx)
    cache.shrink()


def _record_cache(run: Run) -> Answers:
    """The worker's cache over a store, changes in their order of arrival. A cut ends a batch; the cache is kept (twice), emptied or
    made anew in turn."""
    store, plan = MemoryStore(), plan_of(run.entity)
    cache, begin = RecordCache(plan, CHECKPOINTS_SOON), 0
    for number, end in enumerate([*sorted({*run.cuts} - {0}), len(run.changes)]):
        merge_batch(cache, store, run.changes[begin:end])
        begin = end
        if number % 4 == 2:
            cache.clear()
        elif number % 4 == 3:
            cache = RecordCache(plan, CHECKPOINTS_SOON)
    with store.transaction() as tx:
        cache.load([THE_RECORD], tx)
        yield len(ordered(run.changes)), run.read(run.entity, cache.get(THE_RECORD).record)


def _store_queries(run: Run) -> Answers:
    """The read side at the present and at every earlier stamp, over a store with checkpoints at the cuts."""
    store, plan = MemoryStore(), plan_of(run.entity)
    history = ordered(run.changes)
    for number, change in enumerate(history):
        cache = RecordCache(plan)
        merge_batch(cache, store, [change])
        if number in run.cuts:
            record = cache.get(THE_RECORD).record
            assert record.last is not None
            with store.transaction() as tx:
                tx.save_checkpoint(
                    THE_RECORD, Checkpoint(record.last, 1, policy_of(plan), dump_state(record)), number % 9
                )
    queries = StoreQueries(store, plan)
    for number, change in enumerate(history):
        yield number + 1, queries.record(THE_RECORD, change.stamp)
    yield len(history), queries.record(THE_RECORD, None)


def _explained(limits: CompactionLimits) -> Callable[[Run], Answers]:
    """Each field explained in one pass, whose unit states are compacted; all seen writes are named."""

    def answers(run: Run) -> Answers:
        whole = fold(run.entity, run.changes)
        yield (
            len(ordered(run.changes)),
            {field: explained_field(run, field, limits) for field in _explained_fields(run.entity, whole)},
        )

    return answers


def explained_field(run: Run, field: str, limits: CompactionLimits) -> Any:
    record = Record(Units(run.entity, limits), KEY, max_ahead_us=MAX_AHEAD_US, compacts=False)
    return explain_in_one_pass(record, ordered(run.changes), field, named=1_000)


class Implementation(NamedTuple):
    """`read`: the form of the answers, for the full fold too."""

    answers: Callable[[Run], Answers]
    read: Read = exact_answer


IMPLEMENTATIONS: Final[Mapping[str, Implementation]] = {
    "oracle": Implementation(_oracle, merge_answer),
    "shuffled": Implementation(_shuffled),
    "compacting always": Implementation(_compacting(ALWAYS)),
    "compacting often": Implementation(_compacting(OFTEN)),
    "advancing, compacting always": Implementation(_advancing(ALWAYS)),
    "advancing, compacting often": Implementation(_advancing(OFTEN)),
    "checkpointed": Implementation(_checkpointed),
    "record cache": Implementation(_record_cache),
    "store queries": Implementation(_store_queries, merged_record),
    "explained, compacting always": Implementation(_explained(ALWAYS), explanations),
    "explained, compacting often": Implementation(_explained(OFTEN), explanations),
}


class FullFold:
    """The definition, after any number of changes."""

    def __init__(self, entity: EntityPlan, changes: Sequence[Change]) -> None:
        self._entity = entity
        self._history = ordered(changes)
        self._folded = 0
        self._record = Record(Units(entity), KEY, max_ahead_us=MAX_AHEAD_US, compacts=False)

    def after(self, number: int) -> Record:
        if number < self._folded:
            return fold(self._entity, self._history[:number])
        if number == len(self._history) and not self._folded:
            return fold(self._entity, self._history)
        for change in self._history[self._folded : number]:
            assert advance(self._record, change)
        self._folded = number
        return self._record


def check(
    name: str, entity: EntityPlan, changes: Sequence[Change], cuts: Iterable[int] = (), *, read: Read | None = None
) -> None:
    """Wherever the implementation answers, the full fold of the same changes answers so. `read`: another form of the answers."""
    implementation, whole = IMPLEMENTATIONS[name], FullFold(entity, changes)
    form = read or implementation.read
    for number, answer in implementation.answers(Run(entity, changes, sorted(cuts), form)):
        assert answer == form(entity, whole.after(number)), in_words(changes)


def names_a_replaced_write(changes: Sequence[Change]) -> bool:
    """A copy names, by its place, a write that its source had already replaced when the copy was committed. Compaction may have
    forgotten such a write (see the expected failure in test_checkpoint.py)."""
    written = {change.place: change.stamp for change in changes if change.copy is None}
    for copy in changes:
        for stamp in [written[place] for place in (copy.copy.of if copy.copy else ()) if place in written]:
            if any(each.source == stamp.source and stamp < each < copy.stamp for each in written.values()):
                return True
    return False


# ---------------------------------------------------------------- worlds

RARE: Final = ("truncate", "late_copy", "named_copy", "marked_from", "decide", "decide_delete")
EVERY_STEP: Final = sorted({*STEPS} - {"snapshot"})
ALONE: Final = 5
LATER: Final = ("edit", "insert", "marked", "unmarked", "delete", "named_copy", "decide", "truncate")


def _of(**shape: Any) -> Callable[[str], Iterator[Case]]:
    return lambda merge_type: small_worlds(merge_type, **shape)


def _one_writer(*, full_old: bool) -> Callable[[str], Iterator[Case]]:
    """One source writes on alone, then two things happen, then it goes on."""

    def worlds(merge_type: str) -> Iterator[Case]:
        alphabet = ALPHABETS[merge_type]
        plan, start = alphabet.entity(), alphabet.row(alphabet.start)
        values = [*alphabet.values, alphabet.start]
        edits = [("edit", "A", alphabet.row(value)) for value in islice(cycle(values), ALONE)]
        later = alphabet_steps(alphabet, "AB", LATER)
        begins, skews = (("snapshot", "insert"), SKEWS[:2]) if full_old else (("snapshot",), SKEWS[:1])
        for begin, skew, two in product(begins, skews, product(later, repeat=2)):
            world = World(plan, skew={"B": skew}, full_old=full_old)
            for step in ((begin, "A", start), *edits, *two, *edits[: len(values)]):
                perform(world, [step])
            yield plan, world.changes

    return worlds


WORLDS: Final[Mapping[str, Callable[[str], Iterator[Case]]]] = {
    "two sources, three steps": _of(depth=3),
    "two sources, two steps": _of(depth=2),
    "three sources": _of(sources="ABC", depth=2),
    "three sources, equal clocks": _of(sources="ABC", depth=2, skews=(0,)),
    "rare steps": _of(depth=2, kinds=(*USUAL, *RARE)),
    "every step": _of(depth=2, kinds=EVERY_STEP),
    "one writer, complete old rows": _one_writer(full_old=True),
    "one writer, no old rows": _one_writer(full_old=False),
}
