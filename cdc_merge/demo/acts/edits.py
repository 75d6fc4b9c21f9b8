"""Acts that raise no question: one person's edit that the others get, the same edit twice, everything that joins."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from cdc_merge.demo.acts.stage import JOINING, QUESTIONING, Stage, fields_of, united
from cdc_merge.demo.systems import FactValue
from cdc_merge.demo.truth import TrueRecord

SINGLE: Final = {"mv", "lww", "max", "min"}
TAGS: Final = ("vip", "export", "fair", "newsletter", "priority", "reseller", "blocked", "audit")
MOST_BOOKED: Final = 9
BOUNDS: Final = (("customer", "last_contact"), ("customer", "payment_days"), ("order", "promised"))


def one_edits(stage: Stage) -> bool:
    """One person edits one field; the sync job, or an unmarked import, brings it to the other systems."""
    entity = stage.dice.choice(("customer", "customer", "order", "contract"))
    with stage.world.pick(entity, lambda record: bool(fields_of(record, SINGLE)), stage.dice) as record:
        if record is None:
            return False
        name = stage.dice.choice(fields_of(record, SINGLE))
        value = stage.fresh(record, name)
        stage.types(record, stage.dice.choice(record.holders(name)), {name: value})
        if stage.chance(0.6):
            stage.copies(record, name, value)
        else:
            stage.imports(record, name, value)
        record.merged[name] = value
        return True


def two_type_the_same(stage: Stage) -> bool:
    """Two people enter the same value, neither knowing of the other: not a conflict."""
    with stage.world.pick("customer", lambda record: bool(fields_of(record, QUESTIONING)), stage.dice) as record:
        if record is None:
            return False
        name = stage.dice.choice(fields_of(record, QUESTIONING))
        value = stage.fresh(record, name)
        for source in stage.dice.sample(record.holders(name), 2):
            stage.types(record, source, {name: value})
        stage.copies(record, name, value)
        record.merged[name] = value
        return True


def two_book(stage: Stage) -> bool:
    """Two systems add to or take from one counter at once; later, perhaps, the sync job brings the sum to both."""
    entity, name = stage.dice.choice((("customer", "points"), ("contract", "balance")))
    with stage.world.pick(entity, lambda record: _bookable(record, name), stage.dice) as record:
        if record is None:
            return False
        total = number(record.merged[name])
        for source in record.holders(name):
            delta = _delta(stage, min(number(record.held[source][name]), total), record.merged[name])
            with stage.desk.person(source, stage.someone(source)) as hand:
                hand.add(record, name, delta)
            total += delta
        record.merged[name] = _like(record.merged[name], total)
        record.joint = True
        if stage.chance(0.4):
            stage.copies(record, name, record.merged[name])
        return True


def _bookable(record: TrueRecord, name: str) -> bool:
    return record.free(name) and len(record.holders(name)) > 1


def number(value: FactValue) -> Decimal:
    assert isinstance(value, int | Decimal)
    return Decimal(value)


def _like(sample: FactValue, total: Decimal) -> FactValue:
    return int(total) if isinstance(sample, int) else total


def _delta(stage: Stage, available: Decimal, sample: FactValue) -> int | Decimal:
    """A booking of a few points, or of an amount with cents, that leaves what is there at 0 or above."""
    whole = stage.dice.randrange(1, MOST_BOOKED)
    booked = whole if isinstance(sample, int) else whole - Decimal(stage.dice.randrange(100)).scaleb(-2)
    return -booked if stage.chance(0.6) and available >= MOST_BOOKED else booked


def one_adds_one_removes(stage: Stage) -> bool:
    """One system adds a tag while the other removes one, or both add the same."""
    entity, name = stage.dice.choice((("customer", "tags"), ("contract", "parties")))
    with stage.world.pick(entity, lambda record: _bookable(record, name), stage.dice) as record:
        if record is None:
            return False
        first, second = stage.dice.sample(record.holders(name), 2)
        fresh = _fresh_tag(stage, record)
        stage.types(record, first, {name: tags(record, first, name) | {fresh}})
        removable = tags(record, second, name) - record.used
        if len(removable) > 1 and stage.chance(0.7):
            gone = stage.dice.choice(sorted(removable))
            stage.types(record, second, {name: tags(record, second, name) - {gone}})
            record.merged[name] = (merged_tags(record, name) | {fresh}) - {gone}
        else:  # both add it: two additions that nobody has both seen, so no single removal could take it away
            stage.types(record, second, {name: tags(record, second, name) | {fresh}})
            record.used.add(fresh)
            record.merged[name] = merged_tags(record, name) | {fresh}
        record.joint = True
        if stage.chance(0.6):
            stage.copies(record, name, record.merged[name])
        return True


def _fresh_tag(stage: Stage, record: TrueRecord) -> str:
    """A tag that this record never had."""
    return f"{stage.dice.choice(TAGS)}-{stage.world.number(f'tag {record.entity.name} {record.key}')}"


def tags(record: TrueRecord, source: str, name: str) -> frozenset[str]:
    value = record.held[source][name]
    return value if isinstance(value, frozenset) else frozenset()


def merged_tags(record: TrueRecord, name: str) -> frozenset[str]:
    value = record.merged.get(name)
    return value if isinstance(value, frozenset) else frozenset()


def two_move_a_bound(stage: Stage) -> bool:
    """Two systems move a date or a term at once, each further than before: the outermost holds."""
    entity, name = stage.dice.choice(
        (("customer", "last_contact"), ("customer", "payment_days"), ("order", "promised"))
    )
    with stage.world.pick(entity, lambda record: _bookable(record, name), stage.dice) as record:
        if record is None:
            return False
        extreme = max if record.entity.merges[name] == "max" else min
        typed = []
        for source in stage.dice.sample(record.holders(name), 2):
            typed.append(stage.fresh(record, name))
            stage.types(record, source, {name: typed[-1]})
        record.merged[name] = extreme(typed)  # type: ignore[type-var]  # all of one type: dates as text, or numbers
        record.spread.add(name)
        record.joint = True
        return True


def all_enter_the_bound(stage: Stage) -> bool:
    """After such a move everybody types the outermost value by hand: from then on everybody has seen everything."""
    entity = stage.dice.choice(("customer", "order"))
    with stage.world.pick(entity, lambda record: bool(_spread(record)), stage.dice) as record:
        if record is None:
            return False
        name = stage.dice.choice(_spread(record))
        stage.imports(record, name, record.merged[name])
        record.spread.discard(name)
        return True


def _spread(record: TrueRecord) -> list[str]:
    return [name for name in record.spread if record.free(name) and record.entity.merges[name] in JOINING]


def two_remark(stage: Stage) -> bool:
    """Two people write a remark at once: the later stands; copied over, the lost one leaves a trace."""
    entity, name = stage.dice.choice((("customer", "remark"), ("contract", "remark"), ("order", "note")))
    with stage.world.pick(entity, lambda record: _bookable(record, name), stage.dice) as record:
        if record is None:
            return False
        for source in stage.dice.sample(record.holders(name), 2):
            record.merged[name] = stage.fresh(record, name)
            stage.types(record, source, {name: record.merged[name]})
        record.spread.add(name)
        record.joint = True
        if stage.chance(0.6):
            stage.copies(record, name, record.merged[name])
            record.spread.discard(name)
            stage.world.settled(record, name, "concurrent_update")
        return True


def twice_in_one_transaction(stage: Stage) -> bool:
    """One transaction writes a phone twice and gives a point twice: one write, two points."""
    with stage.world.pick("customer", _twice, stage.dice) as record:
        if record is None:
            return False
        source = stage.dice.choice(record.holders("points"))
        with stage.desk.person(source, stage.someone(source)) as hand:
            hand.update(record, {"phone": stage.fresh(record, "phone")})
            hand.add(record, "points", 1)
            record.merged["phone"] = stage.fresh(record, "phone")
            hand.update(record, {"phone": record.merged["phone"]})
            hand.add(record, "points", 1)
        record.merged["points"] = int(number(record.merged["points"])) + 2
        record.joint = True
        stage.copies(record, "phone", record.merged["phone"])
        return True


def _twice(record: TrueRecord) -> bool:
    return record.free("phone") and _bookable(record, "points") and united(record, "phone")
