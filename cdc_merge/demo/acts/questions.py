"""Acts that raise a question which people must answer, and acts that answer one."""

from __future__ import annotations

from typing import Final

from cdc_merge.demo import stock
from cdc_merge.demo.acts.edits import number
from cdc_merge.demo.acts.stage import QUESTIONING, Stage, fields_of, united
from cdc_merge.demo.truth import TrueRecord

CONCURRENT: Final = "concurrent_update"
# How many of a kind stand open at once: enough to look at, few enough that most records stay in play.
MOST_OPEN: Final = {CONCURRENT: 24, "bound": 5, "update_delete": 10, "concurrent_insert": 6, "invariant": 4}
POINTS_LIMIT: Final = 1000  # the check `points_limit` of the configuration
BASELINE_LEFT: Final = 3


def neither_had_seen(stage: Stage) -> bool:
    """Two or three people change one field before anybody's change reached another system."""
    if len(stage.world.open_questions(CONCURRENT)) >= MOST_OPEN[CONCURRENT]:
        return somebody_settles_it(stage)
    entity = stage.dice.choice(("customer", "customer", "order", "contract"))
    with stage.world.pick(entity, lambda record: bool(_questionable(record)), stage.dice) as record:
        if record is None:
            return False
        name = stage.dice.choice(_questionable(record))
        holders = record.holders(name)
        for source in stage.dice.sample(holders, len(holders) if stage.chance(0.25) else 2):
            record.merged[name] = stage.fresh(record, name)
            stage.types(record, source, {name: record.merged[name]})
        record.joint = True
        stage.world.plan(record, name, CONCURRENT)
        return True


def _questionable(record: TrueRecord) -> list[str]:
    return [name for name in fields_of(record, QUESTIONING) if united(record, name)]


def somebody_settles_it(stage: Stage) -> bool:
    """A concurrent edit is talked over: one of the values is brought everywhere, by the sync job or by hand."""
    with stage.world.pick_open(CONCURRENT, stage.dice) as found:
        if found is None:
            return False
        record, name = found
        if record.deleted or record.entity.merges[name] not in QUESTIONING:
            return False
        value = stage.dice.choice([record.held[source][name] for source in record.holders(name)])
        bring = stage.copies if stage.chance(0.5) else stage.imports
        bring(record, name, value)
        record.merged[name] = value
        stage.world.settled(record, name, CONCURRENT)
        return True


def below_its_bound(stage: Stage) -> bool:
    """Two systems each spend all the points they know of: together more than there are."""
    if len(stage.world.open_questions("bound")) >= MOST_OPEN["bound"]:
        return points_are_given_back(stage)
    with stage.world.pick("customer", _spendable, stage.dice) as record:
        if record is None:
            return False
        total = number(record.merged["points"])
        for source in record.holders("points"):
            spent = number(record.held[source]["points"])
            with stage.desk.person(source, stage.someone(source)) as hand:
                hand.add(record, "points", -int(spent))
            total -= spent
        record.merged["points"] = int(total)
        record.joint = True
        stage.world.plan(record, "points", "bound")
        return True


def _spendable(record: TrueRecord) -> bool:
    if not record.free("points") or len(record.holders("points")) < 2:
        return False
    held = [number(record.held[source]["points"]) for source in record.holders("points")]
    return all(held) and sum(held) > number(record.merged["points"])


def points_are_given_back(stage: Stage) -> bool:
    """A booking lifts the counter above its bound again: the question answers itself."""
    with stage.world.pick_open("bound", stage.dice) as found:
        if found is None:
            return False
        record, name = found
        missing = -int(number(record.merged[name]))
        source = stage.dice.choice(record.holders(name))
        with stage.desk.person(source, stage.someone(source)) as hand:
            hand.add(record, name, missing + 50)
        record.merged[name] = 50
        stage.world.settled(record, name, "bound")
        return True


def above_the_limit(stage: Stage) -> bool:
    """Two systems each give points up to the limit that a check sets: no row is above it, the merged record is."""
    if len(stage.world.open_questions("invariant")) >= MOST_OPEN["invariant"]:
        return points_are_taken_back(stage)
    with stage.world.pick("customer", _giftable, stage.dice) as record:
        if record is None:
            return False
        total = number(record.merged["points"])
        for source in record.holders("points"):
            given = POINTS_LIMIT - int(number(record.held[source]["points"]))
            with stage.desk.person(source, stage.someone(source)) as hand:
                hand.add(record, "points", given)
            total += given
        record.merged["points"] = int(total)
        record.joint = True
        stage.world.plan(record, None, "invariant")
        return True


def _giftable(record: TrueRecord) -> bool:
    if record.deleted or record.frozen or len(record.holders("points")) < 2:
        return False
    missing = [POINTS_LIMIT - int(number(record.held[source]["points"])) for source in record.holders("points")]
    return min(missing) > 0 and number(record.merged["points"]) + sum(missing) > POINTS_LIMIT


def points_are_taken_back(stage: Stage) -> bool:
    """Each system takes back some of them, so that the limit is kept again: the question answers itself."""
    with stage.world.pick_asked("invariant", stage.dice) as record:
        if record is None:
            return False
        holders = record.holders("points")
        taken = (int(number(record.merged["points"])) - POINTS_LIMIT // 2) // len(holders)
        for source in holders:
            with stage.desk.person(source, stage.someone(source)) as hand:
                hand.add(record, "points", -taken)
        record.merged["points"] = int(number(record.merged["points"])) - taken * len(holders)
        stage.world.settled(record, None, "invariant")
        return True


def a_job_undoes_an_edit(stage: Stage) -> bool:
    """A full sync puts the old value back over somebody's edit: the value all hold is the value, and a trace stays."""
    with stage.world.pick("customer", lambda record: bool(_questionable(record)), stage.dice) as record:
        if record is None:
            return False
        name = stage.dice.choice(_questionable(record))
        source = stage.dice.choice(record.holders(name))
        stage.types(record, source, {name: stage.fresh(record, name)})
        stage.copies(record, name, record.merged[name])
        record.joint = True
        stage.world.settled(record, name, CONCURRENT)
        return True


def a_first_difference_ends(stage: Stage) -> bool:
    """A phone that differed from the start is entered once more and copied: the divergence is over."""
    if len(stage.world.open_questions("divergence")) <= BASELINE_LEFT:
        return False
    with stage.world.pick_open("divergence", stage.dice) as found:
        if found is None or found[1] != "phone":
            return False
        record, name = found
        value = stage.fresh(record, name)
        stage.types(record, "crm", {name: value})
        stage.copies(record, name, value)
        record.merged[name] = value
        stage.world.settled(record, name, "divergence")
        return True


def deleted_here_edited_there(stage: Stage) -> bool:
    """One system deletes a record that another edits; neither has seen the other."""
    if len(stage.world.open_questions("update_delete")) >= MOST_OPEN["update_delete"]:
        return False
    entity = stage.dice.choice(("customer", "order", "contract"))
    with stage.world.pick(entity, lambda record: record.calm, stage.dice) as record:
        if record is None:
            return False
        name = stage.dice.choice(fields_of(record, QUESTIONING))
        deleting, editing = stage.dice.sample(record.holders(name), 2)
        value = stage.fresh(record, name)
        delete_first = stage.chance(0.5)
        if delete_first:
            _delete(stage, record, deleting)
        stage.types(record, editing, {name: value})
        if not delete_first:
            _delete(stage, record, deleting)
        record.merged[name] = value
        record.joint = True
        stage.world.plan(record, None, "update_delete")
        return True


def _delete(stage: Stage, record: TrueRecord, source: str) -> None:
    with stage.desk.person(source, stage.someone(source)) as hand:
        hand.delete(record)


def both_create_it(stage: Stage) -> bool:
    """Two systems enter one new customer with different names and the same everything else."""
    if len(stage.world.open_questions("concurrent_insert")) >= MOST_OPEN["concurrent_insert"]:
        return False
    values = {**stock.MAKERS["customer"](stage.dice), "payment_days": None}
    record = stock.new_record("customer", stage.world.number("customer"), values, ())
    for source in stage.dice.sample(("crm", "erp"), 2):
        record.merged["name"] = stage.fresh(record, "name")
        with stage.desk.person(source, stage.someone(source)) as hand:
            hand.insert(record, record.merged)
    record.joint = True
    record.freeze()
    stage.world.add(record)
    stage.world.plan(record, "name", "concurrent_insert")
    return True
