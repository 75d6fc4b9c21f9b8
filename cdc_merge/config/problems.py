"""A problem of the configuration as a value: path, sentence, suggestion.

A problem never contains a connection string or the value of an environment variable.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final, NamedTuple, TypeAlias

Path: TypeAlias = "tuple[str | int, ...]"
"""The keys from the top of the file to a value: ("entities", "customer", "unique", 0, "fields")."""

LISTED: Final = 12  # the most alternatives that are listed; more would hide the sentence


class ConfigProblem(NamedTuple):
    """One problem or warning. `suggestion` is the next step, or ""."""

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


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """The nearest allowed word, or all of them when they are few, or nothing."""
    words = list(allowed)
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]}?"
    return f"one of: {', '.join(words)}" if 0 < len(words) <= LISTED else ""
