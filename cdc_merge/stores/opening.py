"""Store URLs: `sqlite://PATH` (so `sqlite:///var/lib/…` is absolute and `sqlite://./state.db` relative) and `memory:`.

Rules: a URL may carry a password, so no error repeats it; one line in `_KINDS` per kind of store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from cdc_merge.errors import ConfigError
from cdc_merge.ports import Store
from cdc_merge.stores.memory import MemoryStore
from cdc_merge.stores.sqlite import SqliteStore

_HINT: Final = "Write `sqlite:///absolute/path.db`, `sqlite://./relative/path.db`, or `memory:`."


def open_store(url: str) -> Store:
    """The store that `url` names. ConfigError when it names none, StoreUnavailable when it cannot be opened."""
    kind, colon, rest = url.partition(":")
    opening = _KINDS.get(kind + colon)
    if opening is None:
        raise ConfigError("`store:` names no kind of store that this cdc-merge has", hint=_HINT)
    return opening(rest)


def _sqlite(rest: str) -> Store:
    path = rest.removeprefix("//")
    if path in ("", rest) or path.endswith("/"):
        raise ConfigError("`store:` says sqlite but names no file", hint=_HINT)
    return SqliteStore(Path(path))


def _memory(rest: str) -> Store:
    if rest:
        raise ConfigError("`store: memory:` takes nothing behind the colon", hint=_HINT)
    return MemoryStore()


_KINDS: Final[Mapping[str, Callable[[str], Store]]] = {"sqlite:": _sqlite, "memory:": _memory}
