"""Acts that cause a conflict, and acts that resolve one."""

from __future__ import annotations

from typing import Final

from cdc_merge.demo import initial_data
from cdc_merge.demo.acts.merge_acts import number
from cdc_merge.demo.acts.stage import CONFLICTING, Stage, all_sources_agree, fields_of
from cdc_merge.demo.truth import TrueRecord

CONCURRENT: Final = "concurrent_update"
# The most open conflicts of a kind: enough to see, few enough that most records stay available.
MOST_OPEN: Final = {CONCURRENT: 24, "bound": 5, "update_delete": 10, "concurrent_insert": 6, "invariant": 4}
POINTS_LIMIT: Final = 1000  # the check `points_limit` of the configuration
BASELINE_LEFT: Final = 3


def neither_had_seen(stage: Stage) -> bool:
    """Two or three users change one field before any of the changes is copied."""
    if len(stage.world.open_of_kind(CONCURRENT)) >= MOST_OPEN[CONCURRENT]:
        return concurrent_edit_is_resolved(stage)
    entity = stage.dice.choice(("customer", "customer", "order", "contract"))
    with stage.world.pick(entity, lambda record: bool(_conflicting_fields(record)), stage.dice) as record:
        if record is None:
            return False
        name = stage.dice.choice(_conflicting_fields(record))
        holders = record.sources_with(name)
        for source in stage.dice.sample(holders, len(holders) if stage.chance(0.25) else 2):
            record.merged[name] = stage.new_value(record, name)
            stage.edit(record, source, {name: record.merged[name]})
        record.is_partially_seen = True
        stage.world.expect_open(record, name, CONCURRENT)
        return True


def _conflicting_fields(record: TrueRecord) -> list[str]:
    return [name for name in fields_of(record, CONFLICTING) if all_sources_agree(record, name)]


def concurrent_edit_is_resolved(stage: Stage) -> bool:
    """A concurrent edit is resolved: one of the values is copied everywhere, by the sync job or by hand."""
    with stage.world.pick_with_conflict(CONCURRENT, stage.dice) as picked:
        if picked is None:
            return False
        record, name = picked
        if record.deleted or record.entity.merges[name] not in CONFLICTING:
            return False
        value = stage.dice.choice([record.rows[source][name] for source in record.sources_with(name)])
        bring = stage.copy if stage.chance(0.5) else stage.import_value
        bring(record, name, value)
        record.merged[name] = value
        stage.world.expect_closed(record, name, CONCURRENT)
        return True


def below_its_bound(stage: Stage) -> bool:
    """Two systems each spend all points of their row: together more than the merged counter."""
    if len(stage.world.open_of_kind("bound")) >= MOST_OPEN["bound"]:
        return points_are_given_back(stage)
    with stage.world.pick("customer", _spendable, stage.dice) as record:
        if record is None:
            return False
        total = number(record.merged["points"])
        for source in record.sources_with("points"):
            spent = number(record.rows[source]["points"])
            with stage.editor.user_transaction(source, stage.actor_at(source)) as tx:
                tx.add(record, "points", -int(spent))
            total -= spent
        record.merged["points"] = int(total)
        record.is_partially_seen = True
        stage.world.expect_open(record, "points", "bound")
        return True


def _spendable(record: TrueRecord) -> bool:
    if not record.free("points") or len(record.sources_with("points")) < 2:
        return False
    points = [number(record.rows[source]["points"]) for source in record.sources_with("points")]
    return all(points) and sum(points) > number(record.merged["points"])


def points_are_given_back(stage: Stage) -> bool:
    """A change brings the counter back above its bound: the conflict closes by itself."""
    with stage.world.pick_with_conflict("bound", stage.dice) as picked:
        if picked is None:
            return False
        record, name = picked
        missing = -int(number(record.merged[name]))
        source = stage.dice.choice(record.sources_with(name))
        with stage.editor.user_transaction(source, stage.actor_at(source)) as tx:
            tx.add(record, name, missing + 50)
        record.merged[name] = 50
        stage.world.expect_closed(record, name, "bound")
        return True


def above_the_limit(stage: Stage) -> bool:
    """Two systems each add points up to the limit of a check: no row is above it, the merged record is."""
    if len(stage.world.open_of_kind("invariant")) >= MOST_OPEN["invariant"]:
        return points_are_taken_back(stage)
    with stage.world.pick("customer", _giftable, stage.dice) as record:
        if record is None:
            return False
        total = number(record.merged["points"])
        for source in record.sources_with("points"):
            given = POINTS_LIMIT - int(number(record.rows[source]["points"]))
            with stage.editor.user_transaction(source, stage.actor_at(source)) as tx:
                tx.add(record, "points", given)
            total += given
        record.merged["points"] = int(total)
        record.is_partially_seen = True
        stage.world.expect_open(record, None, "invariant")
        return True


def _giftable(record: TrueRecord) -> bool:
    if record.deleted or record.frozen or len(record.sources_with("points")) < 2:
        return False
    missing = [POINTS_LIMIT - int(number(record.rows[source]["points"])) for source in record.sources_with("points")]
    return min(missing) > 0 and number(record.merged["points"]) + sum(missing) > POINTS_LIMIT


def points_are_taken_back(stage: Stage) -> bool:
    """Each system removes some points until the check passes again: the conflict closes by itself."""
    with stage.world.pick_with_record_conflict("invariant", stage.dice) as record:
        if record is None:
            return False
        holders = record.sources_with("points")
        taken = (int(number(record.merged["points"])) - POINTS_LIMIT // 2) // len(holders)
        for source in holders:
            with stage.editor.user_transaction(source, stage.actor_at(source)) as tx:
                tx.add(record, "points", -taken)
        record.merged["points"] = int(number(record.merged["points"])) - taken * len(holders)
        stage.world.expect_closed(record, None, "invariant")
        return True


def a_job_undoes_an_edit(stage: Stage) -> bool:
    """A full sync overwrites a user's edit with the old value: all agree on it, and the lost edit is a closed conflict."""
    with stage.world.pick("customer", lambda record: bool(_conflicting_fields(record)), stage.dice) as record:
        if record is None:
            return False
        name = stage.dice.choice(_conflicting_fields(record))
        source = stage.dice.choice(record.sources_with(name))
        stage.edit(record, source, {name: stage.new_value(record, name)})
        stage.copy(record, name, record.merged[name])
        record.is_partially_seen = True
        stage.world.expect_closed(record, name, CONCURRENT)
        return True


def a_first_difference_ends(stage: Stage) -> bool:
    """A phone that differed in the initial snapshots is entered again and copied: the divergence ends."""
    if len(stage.world.open_of_kind("divergence")) <= BASELINE_LEFT:
        return False
    with stage.world.pick_with_conflict("divergence", stage.dice) as picked:
        if picked is None or picked[1] != "phone":
            return False
        record, name = picked
        value = stage.new_value(record, name)
        stage.edit(record, "crm", {name: value})
        stage.copy(record, name, value)
        record.merged[name] = value
        stage.world.expect_closed(record, name, "divergence")
        return True


def deleted_here_edited_there(stage: Stage) -> bool:
    """One system deletes a record that another edits; neither has seen the other."""
    if len(stage.world.open_of_kind("update_delete")) >= MOST_OPEN["update_delete"]:
        return False
    entity = stage.dice.choice(("customer", "order", "contract"))
    with stage.world.pick(entity, lambda record: record.is_undisturbed, stage.dice) as record:
        if record is None:
            return False
        name = stage.dice.choice(fields_of(record, CONFLICTING))
        deleting, editing = stage.dice.sample(record.sources_with(name), 2)
        value = stage.new_value(record, name)
        delete_first = stage.chance(0.5)
        if delete_first:
            _delete(stage, record, deleting)
        stage.edit(record, editing, {name: value})
        if not delete_first:
            _delete(stage, record, deleting)
        record.merged[name] = value
        record.is_partially_seen = True
        stage.world.expect_open(record, None, "update_delete")
        return True


def _delete(stage: Stage, record: TrueRecord, source: str) -> None:
    with stage.editor.user_transaction(source, stage.actor_at(source)) as tx:
        tx.delete(record)


def both_create_it(stage: Stage) -> bool:
    """Two systems insert the same customer concurrently, with different names and otherwise equal fields."""
    if len(stage.world.open_of_kind("concurrent_insert")) >= MOST_OPEN["concurrent_insert"]:
        return False
    values = {**initial_data.GENERATORS["customer"](stage.dice), "payment_days": None}
    record = initial_data.new_record("customer", stage.world.number("customer"), values, ())
    for source in stage.dice.sample(("crm", "erp"), 2):
        record.merged["name"] = stage.new_value(record, "name")
        with stage.editor.user_transaction(source, stage.actor_at(source)) as tx:
            tx.insert(record, record.merged)
    record.is_partially_seen = True
    record.freeze()
    stage.world.add(record)
    stage.world.expect_open(record, "name", "concurrent_insert")
    return True
