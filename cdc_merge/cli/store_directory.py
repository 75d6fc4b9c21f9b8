"""The directory of the store: `run` makes the default one, `check-config` warns where `run` could not use it.

A directory that `store:` names is never made: it may be a volume that is not mounted, and a fresh store beside the
positions of the old one would read every source again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cdc_merge.config.settings import PostgresStore, SqliteStoreSettings
from cdc_merge.errors import StoreUnavailable

OWNER_ONLY: Final = 0o700  # the store holds every merged value
ELSEWHERE: Final = "set store: sqlite:///ABSOLUTE/PATH to a directory that the user that runs cdc-merge may write"


def make_default_directory(store: SqliteStoreSettings | PostgresStore) -> None:
    """Make the default store's directory with mode 0700. StoreUnavailable when that is not possible."""
    if not isinstance(store, SqliteStoreSettings) or not store.is_default:
        return
    missing = [each for each in (store.path.parent, *store.path.parent.parents) if not each.exists()]
    try:
        for directory in reversed(missing):
            directory.mkdir(mode=OWNER_ONLY, exist_ok=True)
    except OSError as error:
        sentence = f"the store's directory {store.path.parent} cannot be made: {error.strerror}"
        raise StoreUnavailable(sentence, hint=f"{ELSEWHERE.capitalize()}.") from error


def directory_warnings(store: SqliteStoreSettings | PostgresStore) -> Iterator[str]:
    """Why `run` could not open a store there, as this user on this machine."""
    if not isinstance(store, SqliteStoreSettings):
        return
    directory = store.path.parent
    if not store.is_default and not directory.is_dir():
        yield f"the store's directory {directory} does not exist here (make it before `cdc-merge run`)"
        return
    existing = next((each for each in (directory, *directory.parents) if each.exists()), Path.cwd())
    if not os.access(existing, os.W_OK | os.X_OK):
        yield f"this user may not write in {existing}, where the store {store.path} belongs ({ELSEWHERE})"
