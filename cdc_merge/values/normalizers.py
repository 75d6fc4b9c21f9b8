"""Normalizers (`normalize:`): texts that differ only in form compare as equal. To add one: a line in NORMALIZERS.

The value itself stays as written; only comparisons use the normal form. Only text is normalized, in arrays element by
element. `n/a` and `unknown` have no digits and are not the same phone: a text without digits stays as it is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

from cdc_merge.model import Json, Value

_SPACES: Final = re.compile(r"\s+")
_COUNTRY: Final = re.compile(r"(?:\+|00)\s*86")
_MOBILE: Final = re.compile(r"1[3-9]\d{9}")
_SERVICE: Final = re.compile(r"[48]00\d{7}")


def _nfkc(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def _collapse_spaces(text: str) -> str:
    return _SPACES.sub(" ", text).strip()


def _digits(text: str) -> str:
    """The decimal digits of any script, as 0-9; a text without digits stays itself."""
    return "".join(str(unicodedata.decimal(sign)) for sign in text if sign.isdecimal()) or text


def _phone_cn(text: str) -> str:
    """A mainland number as dialled at home: `+86 138 0013 8000` = `13800138000`, `+86 10 8888 8888` = `01088888888`."""
    written = _nfkc(text).strip().removeprefix("(").strip()
    country = _COUNTRY.match(written)
    digits = _digits(written[country.end() :] if country else written)
    bare = digits[2:] if not country and digits.startswith("86") else digits
    for candidate in (bare, bare.removeprefix("0")):
        if _MOBILE.fullmatch(candidate):
            return candidate
    if country and digits.isdecimal() and not digits.startswith("0") and not _SERVICE.fullmatch(digits):
        return f"0{digits}"
    return digits or text


NORMALIZERS: Final[Mapping[str, Callable[[str], str]]] = {
    "trim": str.strip,
    "casefold": str.casefold,
    "nfkc": _nfkc,
    "digits": _digits,
    "phone_cn": _phone_cn,
    "collapse_spaces": _collapse_spaces,
}


def _identity(value: Value) -> Value:
    return value


@lru_cache(maxsize=256)  # one entry per distinct `normalize:` list of the configuration
def normalizer(names: tuple[str, ...]) -> Callable[[Value], Value]:
    """Applies these normalizers in order; the identity for (). KeyError for a name that is not in the table."""
    steps = tuple(NORMALIZERS[name] for name in names)
    if not steps:
        return _identity

    def normal(value: Value) -> Value:
        if isinstance(value, tuple):
            return tuple(map(normal, value))
        if not isinstance(value, str) or isinstance(value, Json):
            return value
        for step in steps:
            value = step(value)
        return value

    return normal
