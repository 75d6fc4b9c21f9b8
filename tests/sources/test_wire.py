"""Deliveries, reports and commands between two processes: each arrives as it was sent."""

from __future__ import annotations

import marshal
from collections.abc import Iterable

import pytest

from cdc_merge.model import (
    UNCHANGED,
    Column,
    Delivery,
    Idle,
    Message,
    Parked,
    Position,
    RawValue,
    Relation,
    RowChange,
    SnapshotBegan,
    SnapshotDone,
    SnapshotRows,
    SourceChanged,
    SourceStatus,
    Transaction,
)
from cdc_merge.model.source_commands import ChunkRequest
from cdc_merge.sources.process import wire
from cdc_merge.sources.process.wire import (
    PART_ROWS,
    CommandKind,
    DeliveryPart,
    MessageKind,
    Packer,
    PipeMessage,
    ReaderReport,
    Unpacker,
    command,
    crash_message,
    part_message,
    read_command,
    read_message,
    report_message,
    spilled_message,
)

ITEM = Relation(7, "public", "item", "f", (Column("id", 23, "int4", is_identity=True), Column("name", 25, "text")))
SHELF = Relation(8, "public", "shelf", "d", (Column("id", 23, "int4", is_identity=True),))


def transaction(*changes: RowChange) -> Transaction:
    said = (Message("cdc_merge.actor", b"\x00wang", transactional=True),)
    return Transaction("crm", "7001", 2, 1 << 63, -5, "origin", said, changes)


def inserted(number: int, relation: Relation = ITEM) -> RowChange:
    cells = (b"%d" % number, None)[: len(relation.columns)]
    return RowChange("insert", relation, None, False, cells, number)


def carried(deliveries: Iterable[Delivery]) -> list[Delivery]:
    packer, unpacker = Packer(), Unpacker()
    bodies = [body for delivery in deliveries for body, _ in packer.pack(delivery)]
    return [delivery for body in bodies if (delivery := unpacker.unpack(body)) is not None]


OLD: tuple[RawValue, ...] = (b"1", b"long")
DELIVERIES: list[Delivery] = [
    SnapshotBegan("crm", "7001", 2, 5, 6, {"public.item": 3}),
    SnapshotRows("crm", (RowChange("snapshot", ITEM, None, False, (b"1", b"a"), 0),)),
    SnapshotRows("crm", ()),
    SnapshotDone("crm", 5),
    Idle("crm", "7001", 2, 9, 10),
    transaction(),
    transaction(inserted(0), inserted(0, SHELF), inserted(1)),
    transaction(RowChange("update", ITEM, OLD, True, (b"1", b"short"), 0)),
    transaction(RowChange("update", ITEM, None, False, (b"1", UNCHANGED), 0), inserted(1)),
    transaction(RowChange("delete", ITEM, (b"1", UNCHANGED), False, None, 0)),
    transaction(RowChange("truncate", ITEM, None, False, None, 0)),
]


@pytest.mark.parametrize("delivery", DELIVERIES, ids=lambda each: type(each).__name__)
def test_a_delivery_arrives_as_it_was_sent(delivery: Delivery) -> None:
    (arrived,) = carried([delivery])
    assert arrived == delivery
    assert type(arrived) is type(delivery)


def test_deliveries_arrive_in_order_and_rows_stay_with_their_own() -> None:
    assert carried(DELIVERIES) == DELIVERIES


def test_an_unchanged_cell_is_the_unchanged_one_and_not_an_equal_of_it() -> None:
    (arrived,) = carried([transaction(RowChange("update", ITEM, None, False, (b"1", UNCHANGED), 0))])
    assert isinstance(arrived, Transaction)
    assert (arrived.changes[0].new or ())[1] is UNCHANGED


def test_an_old_cell_that_is_also_the_new_one_arrives_as_one_object() -> None:
    cell = b"the same in both rows"
    (arrived,) = carried([transaction(RowChange("update", ITEM, (b"1", cell), True, (b"2", cell), 0))])
    assert isinstance(arrived, Transaction)
    change = arrived.changes[0]
    assert change.old is not None
    assert change.new is not None
    assert change.old[1] is change.new[1]


@pytest.mark.parametrize("rows", [PART_ROWS - 1, PART_ROWS, PART_ROWS + 1, 3 * PART_ROWS])
def test_a_large_transaction_travels_in_small_parts_and_arrives_whole(rows: int) -> None:
    sent = transaction(*map(inserted, range(rows)))
    packed = list(Packer().pack(sent))
    assert [is_last for _, is_last in packed] == [False] * (len(packed) - 1) + [True]
    assert max(len(marshal.loads(body)[1]) for body, _ in packed if marshal.loads(body)[0] in "RT") <= PART_ROWS
    assert carried([sent]) == [sent]


def test_a_relation_is_announced_once_and_again_when_it_is_another_one() -> None:
    packer = Packer()
    kinds = [[marshal.loads(body)[0] for body, _ in packer.pack(transaction(inserted(0)))] for _ in range(2)]
    assert kinds == [["N", "T"], ["T"]]
    altered = ITEM._replace(columns=ITEM.columns[:1])
    assert [marshal.loads(body)[0] for body, _ in packer.pack(transaction(inserted(0, altered)))] == ["N", "T"]


def test_tables_announced_again_and_again_are_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_RELATIONS_KEPT", 4)
    packer, unpacker = Packer(), Unpacker()
    for number in range(20):
        relation = ITEM._replace(oid=number)
        sent = transaction(inserted(0), inserted(0, relation))
        arrived = [unpacker.unpack(body) for body, _ in packer.pack(sent)]
        assert arrived[-1] == sent
        assert len(packer._relations) <= 4 + 2
        assert len(unpacker._relations) <= 4 + 2


# ---------------------------------------------------------------- messages and commands

REACHED = Position("7001", 2, 1 << 63, "running", "cdc_merge_crm", 5, ("public.item",), "m")


@pytest.mark.parametrize("reached", [None, REACHED])
def test_the_last_part_has_the_position_after_its_delivery(reached: Position | None) -> None:
    read = read_message(part_message(DeliveryPart(b"\0rows", is_last=True), reached))
    assert read == PipeMessage(MessageKind.LAST_PART, b"\0rows", reached)
    assert isinstance(read.reached, Position | None)
    assert read_message(part_message(DeliveryPart(b"\0rows", is_last=False), reached)) == PipeMessage(
        MessageKind.PART, b"\0rows"
    )


def test_a_spilled_transaction_travels_without_its_rows() -> None:
    large = transaction(inserted(0))
    read = read_message(spilled_message(large, (1, 40), REACHED))
    assert read == PipeMessage(MessageKind.SPILLED, reached=REACHED, large=transaction(), rows=(1, 40))
    assert read.large is not None
    assert isinstance(read.large.messages[0], Message)


@pytest.mark.parametrize(
    ("report", "kind"),
    [
        (SourceStatus("crm", "postgres", up=True, counts={("events", "insert"): 3}, copy_s=0.5), MessageKind.STATUS),
        (SourceStatus("crm", "postgres", slot="s", problem="it \ud800 says", safe_bytes=1 << 62), MessageKind.STATUS),
        (SourceChanged("crm", "stopped", "It stopped.", "slot_lost", "Resync.", "position"), MessageKind.FACT),
        (Parked("crm", "public.item", "It has no key.", is_quarantined=True), MessageKind.FACT),
    ],
)
def test_a_report_arrives_as_it_was_sent(report: ReaderReport, kind: MessageKind) -> None:
    assert read_message(report_message(report)) == PipeMessage(kind, report=report)


def test_a_crash_arrives_as_a_text() -> None:
    assert read_message(crash_message("KeyError in rows.py")) == PipeMessage(
        MessageKind.CRASH, report="KeyError in rows.py"
    )


@pytest.mark.parametrize(
    ("kind", "argument"),
    [
        (CommandKind.STOP, 0),
        (CommandKind.CONFIRM, 1 << 63),
        (CommandKind.TAKEN, 5),
        (CommandKind.READ_CHUNK, ChunkRequest(3, "public.item", ("5",))),
        (CommandKind.READ_CHUNK, ChunkRequest(3, "public.item", None, ("id",), (("1",), ("2",)))),
    ],
)
def test_a_command_arrives_as_it_was_sent(kind: CommandKind, argument: int | ChunkRequest) -> None:
    read = read_command(command(kind, argument))
    assert read == (kind, argument)
    assert type(read[1]) is type(argument)
