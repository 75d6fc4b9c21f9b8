"""Acts without a conflict: an edit that is copied, the same edit twice, and merge types that join."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from cdc_merge.demo.acts.stage import CONFLICTING, JOINING, Stage, all_sources_agree, fields_of
from cdc_merge.demo.systems import FactValue
from cdc_merge.demo.truth import TrueRecord

SINGLE: Final = {"mv", "lww", "max", "min"}
TAGS: Final = ("vip", "export", "fair", "newsletter", "priority", "reseller", "blocked", "audit")
MOST_BOOKED: Final = 9
BOUNDS: Final = (("customer", "last_contact"), ("customer", "payment_days"), ("order", "promised"))


def one_edits(stage: Stage) -> bool:
    """One user edits one field; the sync job, or an unmarked import, copies it to the other systems."""
    entity = stage.dice.choice(("customer", "customer", "order", "contract"))
    with stage.world.pick(entity, lambda record: bool(fields_of(record, SINGLE)), stage.dice) as record:
        if record is None:
            return False
        name = stage.dice.choice(fields_of(record, SINGLE))
        value = stage.new_value(record, name)
        stage.edit(record, stage.dice.choice(record.sources_with(name)), {name: value})
        if stage.chance(0.6):
            stage.copy(record, name, value)
        else:
            stage.import_value(record, name, value)
        record.merged[name] = value
        return True


def two_type_the_same(stage: Stage) -> bool:
    """Two users enter the same value concurrently: not a conflict."""
    with stage.world.pick("customer", lambda record: bool(fields_of(record, CONFLICTING)), stage.dice) as record:
        if record is None:
            return False
        name = stage.dice.choice(fields_of(record, CONFLICTING))
        value = stage.new_value(record, name)
        for source in stage.dice.sample(record.sources_with(name), 2):
            stage.edit(record, source, {name: value})
        stage.copy(record, name, value)
        record.merged[name] = value
        return True


def two_book(stage: Stage) -> bool:
    """Two systems change one counter concurrently; in some cases the sync job copies the sum to both later."""
    entity, name = stage.dice.choice((("customer", "points"), ("contract", "balance")))
    with stage.world.pick(entity, lambda record: _bookable(record, name), stage.dice) as record:
        if record is None:
            return False
        total = number(record.merged[name])
        for source in record.sources_with(name):
            delta = _delta(stage, min(number(record.rows[source][name]), total), record.merged[name])
            with stage.editor.user_transaction(source, stage.actor_at(source)) as tx:
                tx.add(record, name, delta)
            total += delta
        record.merged[name] = int(total) if isinstance(record.merged[name], int) else total
        record.is_partially_seen = True
        if stage.chance(0.4):
            stage.copy(record, name, record.merged[name])
        return True


def _bookable(record: TrueRecord, name: str) -> bool:
    return record.free(name) and len(record.sources_with(name)) > 1


def number(value: FactValue) -> Decimal:
    assert isinstance(value, int | Decimal)
    return Decimal(value)


def _delta(stage: Stage, available: Decimal, sample: FactValue) -> int | Decimal:
    """A change by a few points, or by an amount with cents, that keeps the counter at 0 or above."""
    whole = stage.dice.randrange(1, MOST_BOOKED)
    booked = whole if isinstance(sample, int) else whole - Decimal(stage.dice.randrange(100)).scaleb(-2)
    return -booked if stage.chance(0.6) and available >= MOST_BOOKED else booked


def one_adds_one_removes(stage: Stage) -> bool:
    """One system adds a tag while the other removes one, or both add the same tag."""
    entity, name = stage.dice.choice((("customer", "tags"), ("contract", "parties")))
    with stage.world.pick(entity, lambda record: _bookable(record, name), stage.dice) as record:
        if record is None:
            return False
        first, second = stage.dice.sample(record.sources_with(name), 2)
        fresh = _fresh_tag(stage, record)
        stage.edit(record, first, {name: tags(record, first, name) | {fresh}})
        removable = tags(record, second, name) - record.used
        if len(removable) > 1 and stage.chance(0.7):
            removed = stage.dice.choice(sorted(removable))
            stage.edit(record, second, {name: tags(record, second, name) - {removed}})
            record.merged[name] = (merged_tags(record, name) | {fresh}) - {removed}
        else:  # both add it: no writer has seen both additions, so no single removal could remove it
            stage.edit(record, second, {name: tags(record, second, name) | {fresh}})
            record.used.add(fresh)
            record.merged[name] = merged_tags(record, name) | {fresh}
        record.is_partially_seen = True
        if stage.chance(0.6):
            stage.copy(record, name, record.merged[name])
        return True


def _fresh_tag(stage: Stage, record: TrueRecord) -> str:
    """A tag that this record has never had."""
    return f"{stage.dice.choice(TAGS)}-{stage.world.number(f'tag {record.entity.name} {record.key}')}"


def tags(record: TrueRecord, source: str, name: str) -> frozenset[str]:
    value = record.rows[source][name]
    return value if isinstance(value, frozenset) else frozenset()


def merged_tags(record: TrueRecord, name: str) -> frozenset[str]:
    value = record.merged.get(name)
    return value if isinstance(value, frozenset) else frozenset()


def two_move_a_bound(stage: Stage) -> bool:
    """Two systems move a date or a term concurrently, each further than before: the extreme wins."""
    entity, name = stage.dice.choice(
        (("customer", "last_contact"), ("customer", "payment_days"), ("order", "promised"))
    )
    with stage.world.pick(entity, lambda record: _bookable(record, name), stage.dice) as record:
        if record is None:
            return False
        extreme = max if record.entity.merges[name] == "max" else min
        entered = []
        for source in stage.dice.sample(record.sources_with(name), 2):
            entered.append(stage.new_value(record, name))
            stage.edit(record, source, {name: entered[-1]})
        record.merged[name] = extreme(entered)  # type: ignore[type-var]  # all of one type: dates as text, or numbers
        record.unsynced.add(name)
        record.is_partially_seen = True
        return True


def all_enter_the_bound(stage: Stage) -> bool:
    """After such a move the extreme is entered in every system: the field is fully synchronised again."""
    entity = stage.dice.choice(("customer", "order"))
    with stage.world.pick(entity, lambda record: bool(_spread(record)), stage.dice) as record:
        if record is None:
            return False
        name = stage.dice.choice(_spread(record))
        stage.import_value(record, name, record.merged[name])
        record.unsynced.discard(name)
        return True


def _spread(record: TrueRecord) -> list[str]:
    return [name for name in record.unsynced if record.free(name) and record.entity.merges[name] in JOINING]


def two_remark(stage: Stage) -> bool:
    """Two users write a remark concurrently: the later wins; after the copy the overwritten one is a closed conflict."""
    entity, name = stage.dice.choice((("customer", "remark"), ("contract", "remark"), ("order", "note")))
    with stage.world.pick(entity, lambda record: _bookable(record, name), stage.dice) as record:
        if record is None:
            return False
        for source in stage.dice.sample(record.sources_with(name), 2):
            record.merged[name] = stage.new_value(record, name)
            stage.edit(record, source, {name: record.merged[name]})
        record.unsynced.add(name)
        record.is_partially_seen = True
        if stage.chance(0.6):
            stage.copy(record, name, record.merged[name])
            record.unsynced.discard(name)
            stage.world.expect_closed(record, name, "concurrent_update")
        return True


def twice_in_one_transaction(stage: Stage) -> bool:
    """One transaction writes a phone twice and adds a point twice: one write, two points."""
    with stage.world.pick("customer", _twice, stage.dice) as record:
        if record is None:
            return False
        source = stage.dice.choice(record.sources_with("points"))
        with stage.editor.user_transaction(source, stage.actor_at(source)) as tx:
            tx.update(record, {"phone": stage.new_value(record, "phone")})
            tx.add(record, "points", 1)
            record.merged["phone"] = stage.new_value(record, "phone")
            tx.update(record, {"phone": record.merged["phone"]})
            tx.add(record, "points", 1)
        record.merged["points"] = int(number(record.merged["points"])) + 2
        record.is_partially_seen = True
        stage.copy(record, "phone", record.merged["phone"])
        return True


def _twice(record: TrueRecord) -> bool:
    return record.free("phone") and _bookable(record, "points") and all_sources_agree(record, "phone")
