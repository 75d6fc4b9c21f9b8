"""What is wrong with a configuration, as a value: where, what, and what was probably meant.

A problem never repeats a connection string or the value of an environment variable.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final, NamedTuple, TypeAlias

Path: TypeAlias = "tuple[str | int, ...]"
"""The way from the top of the file to a value: ("entities", "customer", "unique", 0, "fields")."""

LISTED: Final = 12  # so many alternatives are named in full; more would hide the sentence


class ConfigProblem(NamedTuple):
    """One thing that is wrong, or, as a warning, worth knowing. `suggestion` is the next step, or ""."""

    path: Path
    sentence: str
    suggestion: str = ""


def path_text(path: Path) -> str:
    """`entities.customer.unique[0].fields`; an empty part marks a second line of the same place and is not shown."""
    text = ""
    for part in path:
        if part == "":
            continue
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The nearest of the known words, or all of them when they are few, or nothing."""
    words = list(known)
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]}?"
    return f"one of: {', '.join(words)}" if 0 < len(words) <= LISTED else ""
