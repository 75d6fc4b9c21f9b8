"""Rules are functions of history, rules and watermark: order, repetition, compaction and checkpoints change no detection."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cdc_merge.cel import compile_expression
from cdc_merge.conflicts.detect import Detection, detect
from cdc_merge.conflicts.rules.rulebook import Rulebook, rulebooks
from cdc_merge.conflicts.rules.selection import ruled
from cdc_merge.merge.fold import fold
from cdc_merge.merge.record_state import Record
from cdc_merge.model.plan import Check, EntityPlan, Plan, Rule
from tests.laws.equivalence import check
from tests.laws.worlds import ENTITY, SECOND, START_US, small_worlds

KINDS = ("edit", "insert", "marked", "unmarked", "late_copy", "delete")
WATERMARKS = (START_US + 4 * SECOND, START_US + 3600 * SECOND)
ONE_VALUE = "string(record.f) != '2' && string(record.f) != '7'"
CHECKED = {"set": "!('b' in record.f)"} | dict.fromkeys(("mv", "lww", "counter", "immutable"), ONE_VALUE)
RULES = (
    Rule("drift", "customer.f", tolerance_us=2 * SECOND),
    Rule("auto", "*.f", severity="low", auto=(("B",), "earliest")),
    Rule("whole", "customer", severity="critical"),
)


def with_rules(shape: EntityPlan) -> tuple[EntityPlan, Rulebook]:
    """The entity with every rule kind on its one field; only A may write it."""
    guarded = {name: replace(field, writer_sources=("A",)) for name, field in shape.fields.items()}
    checked = replace(shape, fields=guarded, checks=(Check("fit", CHECKED[shape.fields["f"].merge]),))
    plan = ruled(Plan({ENTITY: checked}, (), RULES))
    return plan.entities[ENTITY], rulebooks(plan, compile_expression)[ENTITY]


def detections(record: Record, rulebook: Rulebook) -> list[Detection]:
    return [detect(record, rulebook, watermark_us) for watermark_us in WATERMARKS]


@pytest.mark.parametrize("merge_type", ["mv", "lww", "counter", "set", "immutable"])
def test_detection_depends_on_nothing_but_history_rules_and_watermark(merge_type: str) -> None:
    kinds: set[str] = set()
    for plain, changes in small_worlds(merge_type, depth=2, kinds=KINDS, skews=(0,)):
        shape, rulebook = with_rules(plain)

        def read(_: EntityPlan, record: Record, rulebook: Rulebook = rulebook) -> list[Detection]:
            return detections(record, rulebook)

        check("shuffled", shape, changes, read=read)
        check("checkpointed", shape, changes, range(len(changes)), read=read)
        kinds |= {c.kind for detection in read(shape, fold(shape, changes)) for c in detection.conflicts}
    assert {"unauthorized", "divergence", "invariant"} <= kinds
