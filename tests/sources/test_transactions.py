"""The assembler: transactions in order, ordinals, and damaged messages."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_merge.errors import ProtocolError, SourceRefused
from cdc_merge.model import UNCHANGED, Message, Parked, Transaction
from cdc_merge.sources.postgres.protocol.timelines import Timelines, read_history
from cdc_merge.sources.postgres.protocol.transactions import Assembler
from cdc_merge.sources.spill import RowSpill
from tests.recordings import payloads as wire

COLUMNS = [("id", 23, True), ("name", 25, False)]


class World:
    """An assembler with two tables announced, and what it parked."""

    def __init__(self, timelines: Timelines | None = None) -> None:
        self.parked: list[Parked] = []
        self.assembler = Assembler("crm", "77", timelines or Timelines(1), self.parked.append)
        self.feed(wire.relation(1, "public.customer", COLUMNS), wire.relation(2, "public.order", COLUMNS, "f"))

    def feed(self, *payloads: bytes) -> list[Transaction]:
        fed = [self.assembler.feed(payload) for payload in payloads]
        return [transaction for transaction in fed if transaction is not None]

    def transaction(self, *payloads: bytes, end_lsn: int = 200) -> Transaction:
        start = end_lsn - 10
        (transaction,) = self.feed(wire.begin(start), *payloads, wire.commit(start, end_lsn, 1_790_000_000_000_000))
        return transaction


def test_a_transaction_is_complete_at_its_commit_and_not_before() -> None:
    world = World()
    assert world.feed(wire.begin(100), wire.insert(1, [b"1", b"a"])) == []
    was_open = world.assembler.is_open
    (transaction,) = world.feed(wire.commit(100, 200, 1_790_000_000_000_000))
    assert (was_open, world.assembler.is_open) == (True, False)
    assert transaction[:6] == ("crm", "77", 1, 200, 1_790_000_000_000_000, None)
    assert [(change.operation, change.relation.table, change.new) for change in transaction.changes] == [
        ("insert", "public.customer", (b"1", b"a"))
    ]


def test_a_transaction_without_rows_is_delivered_because_it_moves_the_position() -> None:
    assert World().transaction().changes == ()


def test_ordinals_count_per_table_from_zero_and_begin_again_with_the_next_transaction() -> None:
    world = World()
    rows = (wire.insert(1, [b"1", b"a"]), wire.insert(2, [b"1", b"a"]), wire.delete(1, [b"1", None]))
    for _ in range(2):
        changes = world.transaction(*rows).changes
        assert [(change.relation.table, change.ordinal) for change in changes] == [
            ("public.customer", 0),
            ("public.order", 0),
            ("public.customer", 1),
        ]


def test_a_table_recreated_inside_a_transaction_goes_on_counting_under_its_name() -> None:
    world = World()
    again = wire.relation(9, "public.customer", COLUMNS)
    changes = world.transaction(wire.insert(1, [b"1", b"a"]), again, wire.insert(9, [b"1", b"b"])).changes
    assert [(change.relation.oid, change.ordinal) for change in changes] == [(1, 0), (9, 1)]


def test_a_relation_announced_again_applies_to_the_rows_behind_it_only() -> None:
    world = World()
    wider = wire.relation(1, "public.customer", [*COLUMNS, ("city", 25, False)])
    before, after = world.transaction(wire.insert(1, [b"1", b"a"]), wider, wire.insert(1, [b"2", b"b", b"c"])).changes
    assert len(before.relation.columns) == 2
    assert len(after.relation.columns) == 3


def test_an_unchanged_toast_column_is_filled_from_a_full_old_row() -> None:
    (change,) = World().transaction(wire.update(2, [b"1", UNCHANGED], [b"1", b"long"])).changes
    assert change.new == (b"1", b"long")
    assert change.old_is_full


def test_an_unchanged_toast_column_stays_absent_when_only_the_key_was_sent() -> None:
    (change,) = World().transaction(wire.update(1, [b"2", UNCHANGED], [b"1", None], b"K")).changes
    assert change.new == (b"2", UNCHANGED)
    assert change.old == (b"1", None)
    assert not change.old_is_full


def test_type_names_come_from_the_stream_and_for_built_in_types_from_the_table() -> None:
    world = World()
    announced = wire.relation(3, "public.t", [("id", 23, True), ("mood", 16390, False), ("lost", 16999, False)])
    (change,) = world.transaction(
        wire.type_name(16390, "public", "mood"), announced, wire.insert(3, [b"1", b"calm", b"x"])
    ).changes
    assert [column.type_name for column in change.relation.columns] == ["int4", '"public"."mood"', ""]


def test_the_catalog_says_which_type_a_users_name_is() -> None:
    world = World()
    world.assembler.catalog_types = lambda table, oids: {16390: "public._mood", 16391: "_int4"}
    columns = [("id", 23, True), ("mood", 16390, False), ("many", 16391, False), ("price", 16392, False)]
    (change,) = world.transaction(
        wire.type_name(16390, "public", "_mood"),
        wire.type_name(16391, "public", "_whole"),
        wire.type_name(16392, "", "numeric"),
        wire.relation(3, "public.t", columns),
        wire.insert(3, [b"1", b"calm", b"{1}", b"2"]),
    ).changes
    assert [column.type_name for column in change.relation.columns] == ["int4", "public._mood", "_int4", "numeric"]


def test_messages_of_a_transaction_are_in_it_and_stray_ones_are_nowhere() -> None:
    world = World()
    world.feed(wire.message("stray", b"x", False))
    transaction = world.transaction(wire.message("cdc_merge.actor", b"wang"), wire.insert(1, [b"1", b"a"]))
    assert transaction.messages == (Message("cdc_merge.actor", b"wang", transactional=True),)
    assert world.transaction().messages == ()


def test_an_origin_belongs_to_its_own_transaction_only() -> None:
    world = World()
    assert world.transaction(wire.origin("erp")).origin == "erp"
    assert world.transaction().origin is None


def test_a_truncate_is_one_change_for_each_table() -> None:
    changes = World().transaction(wire.truncate([1, 2])).changes
    assert [(change.operation, change.relation.table, change.old, change.new) for change in changes] == [
        ("truncate", "public.customer", None, None),
        ("truncate", "public.order", None, None),
    ]


def test_a_row_that_cannot_be_read_is_parked_takes_its_ordinal_and_the_rest_goes_on() -> None:
    world = World()
    good = wire.insert(1, [b"1", b"a"])
    changes = world.transaction(wire.insert(1, [b"0", b"z"])[:-1], good).changes
    assert [(change.ordinal, change.new) for change in changes] == [(1, (b"1", b"a"))]
    assert [(parked.source, parked.table) for parked in world.parked] == [("crm", "public.customer")]


def test_what_is_parked_never_shows_a_value() -> None:
    world = World()
    world.transaction(wire.insert(1, [b"secret", b"secret"])[:-1])
    assert "secret" not in world.parked[0].reason


def test_a_row_of_an_unknown_relation_is_parked() -> None:
    world = World()
    assert world.transaction(wire.insert(99, [b"1"])).changes == ()
    assert world.parked[0].table == "oid 99"


def test_a_row_with_other_columns_than_its_relation_is_parked() -> None:
    world = World()
    assert world.transaction(wire.insert(1, [b"1"])).changes == ()
    assert "1 columns where the relation has 2" in world.parked[0].reason


def test_an_unknown_message_type_does_not_stop_the_stream() -> None:
    world = World()
    assert len(world.transaction(b"?", wire.insert(1, [b"1", b"a"])).changes) == 1
    assert len(world.parked) == 1


def test_a_commit_that_cannot_be_read_ends_the_connection_because_its_place_is_unknown() -> None:
    world = World()
    world.feed(wire.begin(100))
    with pytest.raises(ProtocolError):
        world.feed(wire.commit(100, 200)[:-1])


DAMAGED = {
    "begin": wire.begin(100)[:-1],
    "origin": wire.origin("erp")[:-1],
    "relation": wire.relation(1, "public.customer", COLUMNS)[:-1],
}


@pytest.mark.parametrize("damaged", DAMAGED.values(), ids=DAMAGED)
def test_damage_to_a_message_that_the_rest_depends_on_ends_the_connection(damaged: bytes) -> None:
    world = World()
    with pytest.raises(ProtocolError):
        world.feed(damaged)
    assert world.parked == []


@pytest.mark.parametrize("kind", [b"S", b"E", b"c", b"A", b"b", b"P", b"K", b"r", b"p"])
def test_a_streamed_or_prepared_transaction_is_not_passed_over(kind: bytes) -> None:
    with pytest.raises(ProtocolError, match="not part of protocol 1"):
        World().feed(kind + bytes(30))


BROKEN_COMMITS = {
    "of another transaction": (wire.begin(100), wire.commit(150, 200)),
    "without a begin": (wire.commit(100, 200),),
    "that ends before it begins": (wire.begin(100), wire.commit(100, 100)),
    "at zero": (wire.begin(0), wire.commit(0, 0)),
    "beyond every position": (wire.begin(100), wire.commit(100, (1 << 64) - 1)),
}


@pytest.mark.parametrize("payloads", BROKEN_COMMITS.values(), ids=BROKEN_COMMITS)
def test_a_commit_that_cannot_be_true_ends_the_connection(payloads: tuple[bytes, ...]) -> None:
    with pytest.raises(ProtocolError):
        World().feed(*payloads)


def test_a_frame_that_is_neither_data_nor_keepalive_is_counted() -> None:
    world = World()
    world.assembler.skip_frame(ord("?"))
    assert "'?'" in world.parked[0].reason


@given(st.data())
def test_any_damage_to_a_real_stream_gives_whole_transactions_or_a_protocol_error(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(wire.RECORDINGS))
    payloads = wire.payloads_of(path)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(payloads) - 1))
        what = data.draw(st.sampled_from(["drop", "double", "swap", "cut", "flip"]))
        payloads = _damaged(payloads, at, what, data.draw(st.integers(0, 255)))
    parked: list[Parked] = []
    assembler = Assembler("crm", "77", Timelines(1), parked.append)
    with suppress(ProtocolError):
        for payload in payloads:
            transaction = assembler.feed(payload)
            if transaction is not None:
                assert not assembler.is_open
                assert transaction.end_lsn > 0
                _numbered(transaction)


def _numbered(transaction: Transaction) -> None:
    """Ordinals of a table grow; one that is missing is a row that was parked."""
    last: dict[str, int] = {}
    for change in transaction.changes:
        assert change.ordinal > last.get(change.relation.table, -1)
        last[change.relation.table] = change.ordinal


def _damaged(payloads: list[bytes], at: int, what: str, byte: int) -> list[bytes]:
    before, one, after = payloads[:at], payloads[at], payloads[at + 1 :]
    where = byte % max(1, len(one))
    if what == "swap":
        return [*before, *after[:1], one, *after[1:]]
    damaged = {
        "drop": [],
        "double": [one, one],
        "cut": [one[:where]],
        "flip": [one[:where] + bytes([byte]) + one[where + 1 :]],
    }
    return [*before, *damaged[what], *after]


def test_a_begin_inside_a_transaction_ends_the_connection() -> None:
    with pytest.raises(ProtocolError):
        World().feed(wire.begin(100), wire.begin(300))


def test_a_transaction_beyond_the_row_limit_is_refused() -> None:
    world = World()
    world.feed(wire.begin(100), *[wire.insert(1, [b"1", b"a"])] * 2)
    world.assembler.spill(RowSpill)
    world.feed(wire.insert(1, [b"1", b"a"]))
    with pytest.raises(SourceRefused, match="more than 2 rows"):
        world.assembler.spill(RowSpill, max_rows=2)


def test_rows_that_were_laid_aside_come_back_in_order_with_those_behind_them() -> None:
    held, aside = World(), World()
    rows = [
        wire.insert(1, [b"1", b"a"]),
        wire.update(2, [b"1", UNCHANGED], old=[b"1", b"a"]),
        wire.delete(1, [b"1", None]),
        wire.update(1, [b"1", UNCHANGED]),
        wire.insert(2, [None, b"c"]),
    ]
    expected = held.transaction(*rows)
    aside.feed(wire.begin(100))
    for n, row in enumerate(rows):
        if n in (1, 2, 4):
            aside.assembler.spill(RowSpill)
        aside.feed(row)
    (found,) = aside.feed(wire.commit(100, 200, 1_790_000_000_000_000))
    assert found._replace(changes=tuple(found.changes)) == expected
    assert (len(found.changes), tuple(found.changes)) == (5, expected.changes), "they can be read again"
    assert found.changes[1].new is not None
    assert found.changes[3].new == (b"1", UNCHANGED)
    assert aside.transaction(rows[0]).changes == held.transaction(rows[0]).changes, "the next one begins anew"


def test_messages_of_other_programs_are_not_kept() -> None:
    assert World().transaction(wire.message("outbox.order", b"x" * 1000)).messages == ()


def test_a_transaction_names_the_timeline_that_wrote_it_not_the_current_one() -> None:
    history = read_history(3, b"1\t0/64\tno recovery target\n\n# a comment\n2\t0/C8\tfailover\n")
    assert history == Timelines(3, ((1, 100), (2, 200)))
    world = World(history)
    timelines = [world.transaction(end_lsn=lsn).timeline for lsn in (100, 101, 200, 201)]
    assert timelines == [1, 2, 2, 3]
