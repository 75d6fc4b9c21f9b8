"""Acts on whole rows: inserts, deletes, reinserts, and changes of the business key."""

from __future__ import annotations

from typing import Final

from cdc_merge.demo import initial_data
from cdc_merge.demo.acts.stage import Stage
from cdc_merge.demo.systems import entities
from cdc_merge.demo.truth import TrueRecord

MOST_NEW: Final = 3_000  # a demo that runs overnight must not fill the disk
ADDING: Final = {"counter", "set"}
FEWEST_UNDISTURBED: Final = 40  # records that are kept for the other acts


def a_new_record(stage: Stage) -> bool:
    """The CRM inserts a new record, and the sync job copies it to the other systems."""
    entity = stage.dice.choice(("customer", "order", "contract"))
    if len(stage.world.records[entity]) > MOST_NEW:
        return False
    values = initial_data.GENERATORS[entity](stage.dice)
    if entity == "customer":  # the CRM does not map payment_days
        values["payment_days"] = None
    record = initial_data.new_record(entity, stage.world.number(entity), values, ())
    _insert_everywhere(stage, record)
    stage.world.add(record)
    return True


def _insert_everywhere(stage: Stage, record: TrueRecord) -> None:
    with stage.editor.user_transaction("crm", stage.actor_at("crm")) as tx:
        tx.insert(record, record.merged)
    for source in record.entity.tables:
        if source != "crm":
            with stage.editor.copy_transaction(source) as tx:
                tx.insert(record, record.merged)


def a_record_ends(stage: Stage) -> bool:
    """One system deletes a record, and the sync job deletes it in the others."""
    entity = stage.dice.choice(("customer", "order", "contract"))
    if len(stage.world.records[entity]) < initial_data.COUNTS[entity] // 2 + FEWEST_UNDISTURBED:
        return False
    with stage.world.pick(entity, lambda record: record.is_undisturbed, stage.dice) as record:
        if record is None:
            return False
        first = stage.dice.choice(list(record.rows))
        with stage.editor.user_transaction(first, stage.actor_at(first)) as tx:
            tx.delete(record)
        for source in list(record.rows):
            with stage.editor.copy_transaction(source, deleting=True) as tx:
                tx.delete(record)
        record.ended(first)
        return True


def a_record_returns(stage: Stage) -> bool:
    """A deleted record is inserted again with other values: a new incarnation without the old values."""
    entity = stage.dice.choice(("customer", "order", "contract"))
    with stage.world.pick(entity, lambda record: record.can_be_reinserted, stage.dice) as record:
        if record is None:
            return False
        record.merged = initial_data.GENERATORS[entity](stage.dice)
        if entity == "customer":
            record.merged["payment_days"] = None
        _insert_everywhere(stage, record)
        record.deleted = False
        # After a reinsert by a copy, the first genuine edit counts as the insert (semantics §2, rule 2): a reset of a
        # counter, every element of a set added again. Two concurrent edits then are no plain sum.
        record.frozen.update(name for name, merge in record.entity.merges.items() if merge in ADDING)
        return True


def two_keys_swap(stage: Stage) -> bool:
    """The CRM swaps the keys of two orders in one transaction; the sync job copies the contents to the ERP."""
    with (
        stage.world.pick("order", lambda record: record.is_undisturbed, stage.dice) as one,
        stage.world.pick("order", lambda record: record.is_undisturbed, stage.dice) as other,
    ):
        if one is None or other is None:
            return False
        table = entities()["order"].tables["crm"]
        with stage.editor.user_transaction("crm", stage.actor_at("crm")) as tx:
            tx.rename(table, one.key, f"{one.key}-{other.key}")
            tx.rename(table, other.key, one.key)
            tx.rename(table, f"{one.key}-{other.key}", other.key)
        one.rows["crm"], other.rows["crm"] = other.rows["crm"], one.rows["crm"]
        one.merged, other.merged = other.merged, one.merged
        with stage.editor.copy_transaction("erp") as tx:
            tx.update(one, one.merged)
            tx.update(other, other.merged)
        one.is_partially_seen = other.is_partially_seen = True
        return True


def an_order_is_renumbered(stage: Stage) -> bool:
    """The CRM changes an order's key, the sync job does so in the ERP: the record continues under its new key."""
    with stage.world.pick("order", lambda record: record.is_undisturbed, stage.dice) as record:
        if record is None:
            return False
        tables = record.entity.tables
        after = initial_data.new_record("order", stage.world.number("order"), record.merged, tuple(tables))
        with stage.editor.user_transaction("crm", stage.actor_at("crm")) as tx:
            tx.rename(tables["crm"], record.key, after.key)
        with stage.editor.copy_transaction("erp") as tx:
            tx.rename(tables["erp"], record.key, after.key)
        record.ended("crm")
        record.freeze()
        after.is_partially_seen = True
        stage.world.add(after)
        return True
