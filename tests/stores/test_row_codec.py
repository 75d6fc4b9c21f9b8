"""stores/row_codec.py: what comes out equals what went in, types included; foreign bodies are refused in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from decimal import Decimal

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_merge.errors import StoreUnavailable
from cdc_merge.model import (
    DECISION,
    DELETE,
    INSERT,
    SNAPSHOT,
    TRUNCATE,
    UNKNOWN,
    UPDATE,
    Candidate,
    Change,
    Conflict,
    Copy,
    DetectedConflict,
    Json,
    MaybeValue,
    Place,
    Stamp,
)
from cdc_merge.stores.row_codec import FORMAT, decode_change, decode_conflict, encode_change, encode_conflict


def exact(value: object) -> object:
    """A form in which 1, True, 1.0, Decimal(1) and their like differ and NaN equals NaN."""
    if isinstance(value, Mapping):
        return {name: exact(each) for name, each in value.items()}
    if isinstance(value, tuple):
        return (type(value).__name__, [exact(each) for each in value])
    if is_dataclass(value):
        return {field.name: exact(getattr(value, field.name)) for field in fields(value)}
    return (type(value).__name__, repr(value))


text = st.text(max_size=12)
micros = st.integers(-(2**40), 2**60)
scalars = st.one_of(
    st.none(),
    text,
    st.integers(),
    st.integers(-(2**200), 2**200),
    st.sampled_from([2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, -(2**71), 255, 256, -129]),
    st.decimals(),
    st.sampled_from(
        [Decimal(each) for each in ("1.0", "1.00", "-0", "NaN", "-Infinity", "Infinity", "1E+400", "sNaN")]
    ),
    st.booleans(),
    st.floats(),
    st.binary(max_size=12),
    text.map(Json),
)
values = st.recursive(scalars, lambda each: st.lists(each, max_size=3).map(tuple), max_leaves=6)
maybe_values = st.one_of(values, st.just(UNKNOWN))
maybe_maps = st.one_of(maybe_values, st.dictionaries(text, values, max_size=3))
maybe_text = st.none() | text
stamps = st.builds(Stamp, micros, st.integers(0, 2**40), text)
places = st.builds(Place, text, st.integers(0, 2**32), st.integers(0, 2**64 - 1), text, st.integers(0, 2**40))
copies = st.none() | st.builds(Copy, maybe_text, st.lists(places, max_size=2).map(tuple))
changes = st.builds(
    Change,
    text,
    text,
    stamps,
    places,
    st.sampled_from([INSERT, UPDATE, DELETE, TRUNCATE, SNAPSHOT, DECISION]) | text,
    st.dictionaries(text, st.tuples(maybe_values, maybe_values), max_size=4),
    maybe_text,
    copies,
    micros,
    maybe_text,
    maybe_text,
    maybe_text,
)
candidates = st.builds(
    Candidate,
    text,
    maybe_maps,
    stamps,
    micros,
    maybe_text,
    places,
    st.lists(stamps, max_size=3).map(tuple),
    st.none() | st.integers() | st.decimals(),
    maybe_text,
)
texts = st.lists(text, max_size=3).map(tuple)
detections = st.builds(
    DetectedConflict,
    text,
    text,
    maybe_text,
    maybe_text,
    text,
    text,
    st.lists(candidates, max_size=3).map(tuple),
    maybe_values,
    maybe_maps,
    texts,
    maybe_text,
    texts,
)
conflicts = st.builds(
    Conflict,
    text,
    detections,
    text,
    st.integers(0, 2**40),
    micros,
    st.none() | micros,
    st.none() | micros,
    maybe_text,
    texts,
    text,
)

EXAMPLE = Change(
    "customer",
    "C001",
    Stamp(1_790_000_000_000_000, 0, "crm"),
    Place("7300000000000000000", 1, 23_873_352, "public.customer", 0),
    UPDATE,
    {"name": ("Wang Wei", "Wang Weiwei"), "phone": ("13800000001", "13800000002"), "points": (10, 12)},
    "wang",
    None,
    1_790_000_000_000_000,
)


def again(change: Change) -> Change:
    return decode_change(encode_change(change), change[:2], change.stamp.source, change.place)


@given(changes)
def test_a_change_comes_back_exactly(change: Change) -> None:
    assert exact(again(change)) == exact(change)


@given(conflicts)
def test_a_conflict_comes_back_exactly(conflict: Conflict) -> None:
    assert exact(decode_conflict(encode_conflict(conflict))) == exact(conflict)


@given(maybe_values, maybe_values)
def test_values_that_differ_in_type_alone_stay_different(one: object, other: object) -> None:
    def body(value: object) -> bytes:
        return encode_change(EXAMPLE._replace(fields={"f": (value, None)}))  # type: ignore[dict-item]  # any model value

    assert (body(one) == body(other)) == (exact(one) == exact(other))


def test_an_absent_copy_and_a_copy_that_names_nothing_differ() -> None:
    assert again(EXAMPLE._replace(copy=Copy())).copy == Copy()
    assert again(EXAMPLE).copy is None


def test_a_change_of_three_fields_takes_less_than_a_hundred_bytes() -> None:
    assert len(encode_change(EXAMPLE)) < 100


def test_a_body_that_an_earlier_version_made_of_cells_is_read_like_any_other() -> None:
    """It wrote a decimal as the source did, and a wall time always in 64 bit."""
    made = bytes.fromhex(
        "9b01cf00065bfeda25e000ce000111700199a46e616d65a24c69a3e78e8ba57072696365c70302312e35c70d02302e30303030303030"
        "30303132a57365617473c0fdc0c000c0c0c0"
    )
    decoded = decode_change(made, ("customer", "C001"), "crm", EXAMPLE.place)
    fields: dict[str, tuple[MaybeValue, MaybeValue]] = {
        "name": ("Li", "王"),
        "price": (Decimal("1.5"), Decimal("0.00000000012")),
        "seats": (None, -3),
    }
    assert decoded == EXAMPLE._replace(stamp=EXAMPLE.stamp._replace(counter=70_000), fields=fields, actor=None)
    assert again(decoded) == decoded


def test_a_body_of_an_unknown_format_is_refused_with_both_numbers() -> None:
    newer = msgpack.packb([FORMAT + 1, {"fields": "otherwise"}])
    for reading in (decode_conflict, lambda body: decode_change(body, ("e", "k"), "crm", EXAMPLE.place)):
        with pytest.raises(StoreUnavailable, match=f"format {FORMAT + 1}.*format {FORMAT}") as refusal:
            reading(newer)
        assert "newer" in refusal.value.hint


@pytest.mark.parametrize(
    "body",
    [b"", b"\xc1", b"\x90", b"\x05", b"\xff" * 40, msgpack.packb([FORMAT]), msgpack.packb([FORMAT, *"abcdefghij"])],
)
def test_a_damaged_body_is_refused_and_not_guessed_at(body: bytes) -> None:
    with pytest.raises(StoreUnavailable, match="damaged|format") as refusal:
        decode_conflict(body)
    assert refusal.value.hint
    with pytest.raises(StoreUnavailable, match="damaged|format"):
        decode_change(body, ("e", "k"), "crm", EXAMPLE.place)


@given(st.integers(0, len(encode_change(EXAMPLE)) - 1))
def test_a_body_cut_short_is_refused(length: int) -> None:
    with pytest.raises(StoreUnavailable):
        decode_change(encode_change(EXAMPLE)[:length], ("e", "k"), "crm", EXAMPLE.place)


def test_what_is_no_value_of_the_model_is_refused_without_showing_it() -> None:
    with pytest.raises(TypeError, match="complex") as refusal:
        encode_change(EXAMPLE._replace(fields={"secret": (None, 4711j)}))  # type: ignore[dict-item]  # wrong on purpose
    assert "4711" not in str(refusal.value)
