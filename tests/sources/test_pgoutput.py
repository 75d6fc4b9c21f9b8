"""The decoder: each message as the protocol's documentation writes it, and nothing but ProtocolError for the rest."""

from __future__ import annotations

import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_merge.errors import ProtocolError
from cdc_merge.model import UNCHANGED, Column, Relation
from cdc_merge.sources.postgres.protocol import pgoutput
from cdc_merge.sources.postgres.protocol.pgoutput import decode
from tests.recordings import payloads as wire

ALL_KINDS = [
    (wire.begin(0x16B3748, 1_790_000_000_000_001, 900), pgoutput.BeginMessage(0x16B3748, 1_790_000_000_000_001, 900)),
    (wire.commit(10, 20, 1_790_000_000_000_002), pgoutput.CommitMessage(10, 20, 1_790_000_000_000_002)),
    (wire.origin("erp"), pgoutput.OriginMessage(1, "erp")),
    (wire.type_name(16390, "public", "mood"), pgoutput.TypeMessage(16390, "public", "mood")),
    (
        wire.relation(5, "public.客户", [("id", 23, True), ("name", 25, False)], "f"),
        Relation(5, "public", "客户", "f", (Column("id", 23, "", True), Column("name", 25, "", False))),
    ),
    (wire.insert(5, [b"1", None, b""]), pgoutput.InsertMessage(5, (b"1", None, b""))),
    (wire.update(5, [b"1", UNCHANGED]), pgoutput.UpdateMessage(5, None, False, (b"1", UNCHANGED), True)),
    (wire.update(5, [b"2"], [b"1"], b"K"), pgoutput.UpdateMessage(5, (b"1",), False, (b"2",), False)),
    (wire.update(5, [b"2"], [b"1"], b"O"), pgoutput.UpdateMessage(5, (b"1",), True, (b"2",), False)),
    (wire.delete(5, [b"1", None]), pgoutput.DeleteMessage(5, (b"1", None), False)),
    (wire.delete(5, [b"1", b"x"], b"O"), pgoutput.DeleteMessage(5, (b"1", b"x"), True)),
    (wire.truncate([5, 6], 3), pgoutput.TruncateMessage((5, 6))),
    (wire.message("p", b"\0\xff"), pgoutput.LogicalMessage(True, 9, "p", b"\0\xff")),
    (wire.message("p", b"", False), pgoutput.LogicalMessage(False, 9, "p", b"")),
]


@pytest.mark.parametrize(("payload", "expected"), ALL_KINDS, ids=lambda value: type(value).__name__)
def test_a_message_is_decoded_as_documented(payload: bytes, expected: object) -> None:
    assert decode(payload) == expected
    assert type(decode(payload)) is type(expected)


@pytest.mark.parametrize(("payload", "expected"), ALL_KINDS, ids=lambda value: type(value).__name__)
def test_a_message_behind_a_header_in_a_memoryview_is_the_same(payload: bytes, expected: object) -> None:
    assert decode(memoryview(bytes(25) + payload), 25) == expected


@pytest.mark.parametrize("payload", [payload for payload, _ in ALL_KINDS])
def test_every_truncation_of_a_message_is_a_protocol_error(payload: bytes) -> None:
    for end in range(len(payload)):
        with pytest.raises(ProtocolError):
            decode(payload[:end])


@pytest.mark.parametrize("payload", [payload for payload, _ in ALL_KINDS])
def test_a_byte_too_many_is_a_protocol_error(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(payload + b"\0")


def test_equal_cells_of_an_update_are_one_object() -> None:
    update = decode(wire.update(5, [b"same text", b"new", None], [b"same text", b"old", None]))
    assert isinstance(update, pgoutput.UpdateMessage)
    assert update.old is not None
    assert update.new[0] is update.old[0]
    assert update.new[1:] == (b"new", None)


def test_a_key_only_old_row_does_not_leak_into_the_new_one() -> None:
    update = decode(wire.update(5, [b"2", UNCHANGED, None], [b"1", None, None], b"K"))
    assert update == pgoutput.UpdateMessage(5, (b"1", None, None), False, (b"2", UNCHANGED, None), True)


def test_a_binary_value_is_refused_as_not_requested() -> None:
    payload = wire.insert(5, [b"1"]).replace(b"t\0\0\0\x01", b"b\0\0\0\x01")
    with pytest.raises(ProtocolError, match="binary form, which was not requested"):
        decode(payload)


def test_an_unknown_message_type_is_in_the_error() -> None:
    with pytest.raises(ProtocolError, match="'S' is not part of protocol 1"):
        decode(b"S\0\0\0\1\1")


def test_a_truncate_that_claims_four_billion_relations_is_refused_without_reading_them() -> None:
    with pytest.raises(ProtocolError):
        decode(b"T\xff\xff\xff\xff\0" + bytes(8))


def test_text_that_is_not_utf8_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError):
        decode(b"O" + bytes(8) + b"\xff\xfe\0")


@given(st.binary(max_size=200))
def test_random_bytes_give_a_message_or_a_protocol_error(payload: bytes) -> None:
    try:
        decode(payload)
    except ProtocolError:
        return


REAL = wire.recorded_payloads()
_kinds = st.sampled_from(b"BCORYIUDTM")


@given(_kinds, st.binary(max_size=200))
def test_random_bytes_behind_a_known_type_give_a_message_or_a_protocol_error(kind: int, rest: bytes) -> None:
    try:
        decode(bytes([kind]) + rest)
    except ProtocolError:
        return


@given(st.sampled_from(REAL), st.data())
def test_a_damaged_real_payload_gives_a_message_or_a_protocol_error(payload: bytes, data: st.DataObject) -> None:
    damaged = bytearray(payload)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    try:
        decode(bytes(damaged[:cut]))
    except ProtocolError:
        return


_cells = st.lists(st.none() | st.just(UNCHANGED) | st.binary(max_size=20), max_size=12)


@given(_cells, st.none() | _cells, st.sampled_from([b"O", b"K"]))
def test_any_row_is_decoded_as_it_was_encoded(new: list, old: list | None, kind: bytes) -> None:  # type: ignore[type-arg]
    update = decode(wire.update(77, new, old, kind))
    assert update == pgoutput.UpdateMessage(
        77, None if old is None else tuple(old), old is not None and kind == b"O", tuple(new), UNCHANGED in new
    )


def test_every_recorded_payload_is_decoded() -> None:
    assert len(REAL) > 100
    kinds = {type(decode(payload)) for payload in REAL}
    assert kinds == {type(expected) for _, expected in ALL_KINDS}


def test_an_update_of_two_rows_of_ten_columns_is_decoded_within_a_generous_time() -> None:
    old = [
        b"12345",
        b"C00012345",
        b"Alice Example",
        b"13800000000",
        b"100",
        b"gold",
        b"2024",
        b"Beijing",
        b"12.50",
        b"t",
    ]
    new = [*old[:2], b"Bob", *old[3:]]
    payload = wire.update(16400, new, old)
    seconds = min(timeit.repeat(lambda: decode(payload), number=500, repeat=5)) / 500
    assert seconds < 80e-6, "ten times what it takes on the machine where it was written"
