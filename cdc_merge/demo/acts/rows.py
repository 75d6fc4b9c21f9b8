"""Acts on whole rows: records that begin, end, come back, and change their business key."""

from __future__ import annotations

from typing import Final

from cdc_merge.demo import stock
from cdc_merge.demo.acts.stage import Stage
from cdc_merge.demo.systems import entities
from cdc_merge.demo.truth import TrueRecord

MOST_NEW: Final = 3_000  # a demo that runs over night should not fill the disk
ADDING: Final = {"counter", "set"}
FEWEST_CALM: Final = 40  # records that stay undeleted for the other acts


def a_new_record(stage: Stage) -> bool:
    """The CRM enters a new record, and the sync job creates it in the other systems."""
    entity = stage.dice.choice(("customer", "order", "contract"))
    if len(stage.world.records[entity]) > MOST_NEW:
        return False
    values = stock.MAKERS[entity](stage.dice)
    if entity == "customer":  # the CRM does not know terms of payment
        values["payment_days"] = None
    record = stock.new_record(entity, stage.world.number(entity), values, ())
    _enter(stage, record)
    stage.world.add(record)
    return True


def _enter(stage: Stage, record: TrueRecord) -> None:
    with stage.desk.person("crm", stage.someone("crm")) as hand:
        hand.insert(record, record.merged)
    for source in record.entity.tables:
        if source != "crm":
            with stage.desk.copying(source) as hand:
                hand.insert(record, record.merged)


def a_record_ends(stage: Stage) -> bool:
    """One system deletes a record, and the sync job deletes it in the others."""
    entity = stage.dice.choice(("customer", "order", "contract"))
    if len(stage.world.records[entity]) < stock.COUNTS[entity] // 2 + FEWEST_CALM:
        return False
    with stage.world.pick(entity, lambda record: record.calm, stage.dice) as record:
        if record is None:
            return False
        first = stage.dice.choice(list(record.held))
        with stage.desk.person(first, stage.someone(first)) as hand:
            hand.delete(record)
        for source in list(record.held):
            with stage.desk.copying(source, deleting=True) as hand:
                hand.delete(record)
        record.ended(first)
        return True


def a_record_returns(stage: Stage) -> bool:
    """A deleted record is entered again with other values: a new life, in which the old values do not come back."""
    entity = stage.dice.choice(("customer", "order", "contract"))
    with stage.world.pick(entity, lambda record: record.returnable, stage.dice) as record:
        if record is None:
            return False
        record.merged = stock.MAKERS[entity](stage.dice)
        if entity == "customer":
            record.merged["payment_days"] = None
        _enter(stage, record)
        record.deleted = False
        # Where a sync job brought a row back, the first genuine edit counts as its insert (semantics §2, rule 2): for a
        # counter that is a set, for a set every element anew. What two people then do at once is no plain sum any more.
        record.frozen.update(name for name, merge in record.entity.merges.items() if merge in ADDING)
        return True


def two_keys_swap(stage: Stage) -> bool:
    """The CRM swaps the numbers of two orders in one transaction; the sync job brings the contents over."""
    with (
        stage.world.pick("order", lambda record: record.calm, stage.dice) as one,
        stage.world.pick("order", lambda record: record.calm, stage.dice) as other,
    ):
        if one is None or other is None:
            return False
        table = entities()["order"].tables["crm"]
        with stage.desk.person("crm", stage.someone("crm")) as hand:
            hand.rename(table, one.key, f"{one.key}-{other.key}")
            hand.rename(table, other.key, one.key)
            hand.rename(table, f"{one.key}-{other.key}", other.key)
        one.held["crm"], other.held["crm"] = other.held["crm"], one.held["crm"]
        one.merged, other.merged = other.merged, one.merged
        with stage.desk.copying("erp") as hand:
            hand.update(one, one.merged)
            hand.update(other, other.merged)
        one.joint = other.joint = True
        return True


def an_order_is_renumbered(stage: Stage) -> bool:
    """The CRM corrects an order's number, the sync job does so in the ERP: the record goes on under its new key."""
    with stage.world.pick("order", lambda record: record.calm, stage.dice) as record:
        if record is None:
            return False
        tables = record.entity.tables
        after = stock.new_record("order", stage.world.number("order"), record.merged, tuple(tables))
        with stage.desk.person("crm", stage.someone("crm")) as hand:
            hand.rename(tables["crm"], record.key, after.key)
        with stage.desk.copying("erp") as hand:
            hand.rename(tables["erp"], record.key, after.key)
        record.ended("crm")
        record.freeze()
        after.joint = True
        stage.world.add(after)
        return True
