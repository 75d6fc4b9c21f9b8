"""The SQLite database file: opening it, migrating its layout, translating its errors.

Rules: every commit is on disk before it returns (WAL, `synchronous=FULL`); a file of another program, or with a newer
layout, is not changed; migrations run one by one, each with its number in one transaction, only under the claim.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cdc_merge.errors import StoreHeld, StoreUnavailable
from cdc_merge.sql_files import named_statements
from cdc_merge.stores.sqlite.lock import LockFile
from cdc_merge.stores.sqlite.migrations import migrations

SQL: Final = named_statements(__package__, "sqlite")
_MIGRATIONS: Final = migrations("sqlite")

_BUSY_WAIT_S: Final = 5.0  # only checkpoints and migrations of another process cause a wait
_CHECKPOINT_PAGES: Final = 4000  # 16 MB of log between checkpoints: pages hit by many batches are copied once
_LOG_LIMIT_BYTES: Final = 67_108_864  # a log that one huge batch blew up shrinks again
_WRITER_CACHE_KIB: Final = 65_536  # holds `head` and the inner pages of 100,000s of records
_IDLE_READERS: Final = 8  # connections kept for the next readers; more are opened when needed, and closed

_SPACE = "Free disk space beside the store; the sidecar resumes where it stopped."
_RIGHTS = "Create the directory and let the user that runs cdc-merge write the file and beside it."
_BACKUP = "Stop the sidecar, keep the file for analysis, restore it from a backup or start an empty store and resync."
_DISK = "Check the disk and the kernel log; nothing of the batch was confirmed to its source."

_RELEASE = "Stop the program that writes to the file (find it with fuser or lsof); nothing of the batch was confirmed to its source."

# Primary result codes of SQLite (sqlite.org/rescode.html): the error, and the operator's next step.
_MEANINGS: Final[Mapping[int, tuple[str, str]]] = {
    sqlite3.SQLITE_FULL: ("has no space left to write", _SPACE),
    sqlite3.SQLITE_IOERR: ("could not be read or written by the operating system", _DISK),
    sqlite3.SQLITE_READONLY: ("may not be written", _RIGHTS),
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened", _RIGHTS),
    sqlite3.SQLITE_PERM: ("may not be opened", _RIGHTS),
    sqlite3.SQLITE_NOTADB: ("is not an SQLite database", "Set `store:` to another file, or restore this one."),
    sqlite3.SQLITE_CORRUPT: ("is damaged", _BACKUP),
    sqlite3.SQLITE_BUSY: ("is held by another program", _RELEASE),
}


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into StoreUnavailable (nothing was saved). Our own misuse of the driver passes through."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        sentence, hint = _MEANINGS.get(code, ("refused a statement", _BACKUP))
        raise StoreUnavailable(f"the store {path} {sentence} ({name})", hint=hint) from error


def begin(path: Path, cursor: sqlite3.Cursor) -> None:
    """Begin a write transaction. StoreHeld while another program writes longer than the driver waits."""
    try:
        cursor.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        sentence, hint = _MEANINGS[sqlite3.SQLITE_BUSY]
        raise StoreHeld(f"the store {path} {sentence} ({error.sqlite_errorname})", hint=hint) from error


def _connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode: the code begins and ends transactions itself. Any thread may use it."""
    return sqlite3.connect(path, timeout=_BUSY_WAIT_S, isolation_level=None, check_same_thread=False)


def open_for_writing(path: Path, claim: Callable[[], LockFile]) -> sqlite3.Connection:
    """The one connection that writes, to a file with this program's layout; a due migration takes `claim` first."""
    connection = _connect(path)
    try:
        version = _version(path, connection)  # first: the next statements would change a file that is not a store
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES:d}")
        connection.execute(f"PRAGMA journal_size_limit = {_LOG_LIMIT_BYTES:d}")
        connection.execute(f"PRAGMA cache_size = -{_WRITER_CACHE_KIB:d}")
        if version < len(_MIGRATIONS):
            _run_migrations(path, connection, claim)
    except BaseException:
        connection.close()
        raise
    return connection


class Readers:
    """A pool of read connections for all threads; each use sees one committed state of the store."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: deque[sqlite3.Connection] = deque()
        self._closed = False

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Cursor]:
        self.refuse_when_closed()
        with translated(self._path):
            connection = self._acquire()
            try:
                connection.execute("BEGIN")
                yield connection.cursor()
            finally:
                connection.rollback()
                self._release(connection)

    def refuse_when_closed(self) -> None:
        if self._closed:
            raise StoreUnavailable(f"the store {self._path} is closed", hint="Retry when the sidecar is running.")

    def _acquire(self) -> sqlite3.Connection:
        try:
            return self._idle.pop()
        except IndexError:
            connection = _connect(self._path)
            connection.execute("PRAGMA query_only = ON")
            return connection

    def _release(self, connection: sqlite3.Connection) -> None:
        if self._closed or len(self._idle) >= _IDLE_READERS:
            connection.close()
        else:
            self._idle.append(connection)

    def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop().close()


# ---------------------------------------------------------------- the layout's version


def _run_migrations(path: Path, connection: sqlite3.Connection, claim: Callable[[], LockFile]) -> None:
    lock = claim()
    try:
        # Read again under the lock: another worker may just have migrated.
        for number, statements in _MIGRATIONS[_version(path, connection) :]:
            _migrate(connection, number, statements)
    finally:
        lock.release()


def _version(path: Path, connection: sqlite3.Connection) -> int:
    """The number of the file's last migration; StoreUnavailable if it is newer than ours, or the file is not a store."""
    tables = {name for (name,) in connection.execute(SQL["tables"])}
    if not tables:
        return 0
    if not tables >= {"schema_version", "history", "head"}:
        raise StoreUnavailable(
            f"{path} is an SQLite database of another program",
            hint="Set `store:` to another file; this one was not changed.",
        )
    version = int(connection.execute(SQL["schema_version"]).fetchone()[0])
    if version > len(_MIGRATIONS):
        raise StoreUnavailable(
            f"the store {path} has layout {version}, this cdc-merge reads layouts up to {len(_MIGRATIONS)}",
            hint="A newer cdc-merge has opened it: run that version, or restore the backup taken before the upgrade.",
        )
    return version


def _migrate(connection: sqlite3.Connection, number: int, statements: tuple[str, ...]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in statements:
            connection.execute(statement)
        connection.execute(SQL["set_schema_version"], (number,))
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()
        raise
