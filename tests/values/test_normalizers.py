"""Texts that differ only in form compare as equal, and no others."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_merge.model import Json, Value
from cdc_merge.values.normalizers import NORMALIZERS, normalizer


@pytest.mark.parametrize(
    ("names", "text", "normal"),
    [
        (("trim",), "  a b\t", "a b"),
        (("casefold",), "Straße", "strasse"),
        (("nfkc",), "ＡＢＣ１", "ABC1"),
        (("collapse_spaces",), " a \n  b ", "a b"),
        (("digits",), "+86 138-0013-8000", "8613800138000"),
        (("digits",), "１３８", "138"),
        (("digits",), "n/a", "n/a"),
        (("trim", "casefold"), " ACME ", "acme"),
        ((), " A ", " A "),
    ],
)
def test_a_text_takes_its_normal_form(names: tuple[str, ...], text: str, normal: str) -> None:
    assert normalizer(names)(text) == normal


@pytest.mark.parametrize(
    "written",
    [
        "13800138000",
        "138 0013 8000",
        "138-0013-8000",
        "+86 138 0013 8000",
        "+8613800138000",
        "(+86)13800138000",
        "0086-13800138000",
        "8613800138000",
        "013800138000",
        "１３８００１３８０００",
    ],
)
def test_a_mainland_mobile_number_is_one_number_however_written(written: str) -> None:
    assert normalizer(("phone_cn",))(written) == "13800138000"


@pytest.mark.parametrize("written", ["010-88888888", "(010) 8888 8888", "+86 10 8888 8888", "0086 010 88888888"])
def test_a_mainland_landline_is_one_number_however_written(written: str) -> None:
    assert normalizer(("phone_cn",))(written) == "01088888888"


def test_different_phone_numbers_stay_different() -> None:
    phone = normalizer(("phone_cn",))
    written = ["13800138000", "13800138001", "01088888888", "+86 400 123 4567", "86001234", "n/a", "unknown", "+86", ""]
    assert len({phone(text) for text in written}) == len(written)


# Not casefold: Unicode's own is not idempotent for every sign.
@given(st.text())
@pytest.mark.parametrize("name", sorted(NORMALIZERS.keys() - {"casefold"}))
def test_a_normal_form_is_its_own_normal_form(name: str, text: str) -> None:
    once = normalizer((name,))(text)
    assert normalizer((name,))(once) == once


@pytest.mark.parametrize("value", [None, 1, Decimal(1), True, 1.5, b" A ", Json('{"a":" A "}')])
def test_only_text_is_normalised(value: Value) -> None:
    assert normalizer(("trim", "casefold"))(value) is value


def test_arrays_are_normalised_element_by_element() -> None:
    assert normalizer(("trim",))((" a", None, (" b ", 1))) == ("a", None, ("b", 1))


def test_an_unknown_name_is_a_mistake_at_once() -> None:
    with pytest.raises(KeyError):
        normalizer(("trimm",))
