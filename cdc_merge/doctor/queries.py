"""The SQL of this package by name: `sql/<name>.sql`, whose first line says why. Parameters are $1, $2 … (RawCursor)."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def query(name: str) -> str:
    return files("cdc_merge.doctor").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")
