"""What a server's "no" means: a SQLSTATE is `SourceUnavailable` (try again) or `SourceRefused` (act first).

Rules: the sentence names the source and never shows the DSN, a password or a row; the server's own words are kept where
they cannot hold any of these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg

from cdc_merge.errors import CdcMergeError, SourceRefused, SourceUnavailable

_REFUSED: Final[dict[str, tuple[str, str]]] = {
    "28": ("authentication", "Check user and password of the DSN and the server's pg_hba.conf."),
    "3D000": ("database_missing", "Check the database name in the DSN."),
    "42501": ("not_permitted", "Grant what is missing; `cdc-merge source grants` prints the SQL."),
    "42704": ("slot_missing", "Check the names of slot and publication; `cdc-merge doctor` shows what exists."),
    "0A": ("configuration", "The server cannot do what was asked; `cdc-merge doctor` shows its version and limits."),
    "22023": ("configuration", "The server does not accept an option; `cdc-merge doctor` shows its version."),
    "42601": ("configuration", "Check the names of slot and publication."),
    "42602": ("configuration", "A slot's name has only lower-case letters, digits and underscores."),
    "53400": ("configuration", "Raise max_replication_slots on the server, or drop a slot that nobody uses."),
    "55000": ("configuration", "Run `cdc-merge doctor` on this source."),
    "58P01": ("slot_lost", "WAL that the slot needs is gone: take a new first copy with `cdc-merge source resync`."),
}
"""By SQLSTATE or its class; everything else may pass by itself and is tried again."""

_LOST_WORDS: Final = ("invalidated", "exceeded the maximum reserved size", "can no longer")

# libpq gives no SQLSTATE for a connection that never came to be, only words; a server that answers in another language
# (lc_messages) is tried again, with its words shown. The server's words follow its severity, a colon and two spaces.
_SERVER_WORDS: Final = re.compile(r"(?:failed: [^:\n]+|FATAL|ERROR):  (.*)")
_CONNECT_WORDS: Final = (
    (r"password authentication failed|no password supplied|authentication failed", "28P01"),
    (r"no pg_hba\.conf entry|is not permitted to log in|role .* does not exist", "28000"),
    (r"database .* does not exist", "3D000"),
    (r"permission denied|must be superuser or replication role", "42501"),
    (r"wal_level", "55000"),
    (r"too many (clients|connections)|remaining connection slots|exceeds max_wal_senders", "53300"),
    (r"starting up|shutting down|recovery mode|not yet accepting|not accepting", "57P03"),
)

_NETWORK_WORDS: Final = (
    ("closed the connection unexpectedly", "it closed the connection"),
    ("has been closed unexpectedly", "it closed the connection"),
    ("Connection refused", "connection refused"),
    ("No such file or directory", "no such socket"),
    ("timeout expired", "no answer in time"),
    ("could not translate host name", "its host name is unknown"),
    ("SSL", "TLS failed"),
    ("No route to host", "no route to host"),
    ("Network is unreachable", "network unreachable"),
)
"""What libpq says, and what we say of it: its own text may hold parts of a mistyped DSN."""


def refusal(source: str, sqlstate: str | None, words: str) -> CdcMergeError:
    """The error for a server's answer; `words` must be the server's, not libpq's."""
    said = f"Source {source}: the server says: {words.strip()}"
    known = _REFUSED.get(sqlstate or "") or _REFUSED.get((sqlstate or "")[:2])
    if known is None:
        return SourceUnavailable(said, hint="It is tried again; if it stays, read the server's log.", sqlstate=sqlstate)
    problem, hint = known
    if sqlstate == "55000" and any(word in words for word in _LOST_WORDS):
        problem, hint = _REFUSED["58P01"]
    elif sqlstate == "55000" and "wal_level" in words:
        problem, hint = "wal_level", "Set wal_level = logical on the server and restart it."
    elif sqlstate == "42704" and "publication" in words:
        problem, hint = "publication_missing", "Create the publication; `cdc-merge source grants` prints the SQL."
    return SourceRefused(said, problem=problem, hint=hint, sqlstate=sqlstate)


def connect_refusal(source: str, error: psycopg.Error) -> CdcMergeError:
    """The error for a connection that never came to be, or that ended: only the server's own words are shown."""
    text = str(error)
    fatal = _SERVER_WORDS.search(text)
    if fatal:
        words = fatal.group(1)
        sqlstate = next((state for pattern, state in _CONNECT_WORDS if re.search(pattern, words)), None)
        return refusal(source, error.sqlstate or sqlstate, words)
    why = next((reason for words, reason in _NETWORK_WORDS if words in text), "no answer")
    return SourceUnavailable(
        f"Source {source}: the server cannot be reached ({why}).",
        hint="Check host, port and network; it is tried again.",
        sqlstate="08001",
    )


@contextmanager
def server_errors(source: str) -> Iterator[None]:
    """Turns what psycopg raises inside the block into this project's errors."""
    try:
        yield
    except psycopg.Error as error:
        raise answered(source, error) from None


def answered(source: str, error: psycopg.Error) -> CdcMergeError:
    """The error for a failure on an open connection."""
    if error.sqlstate is None:
        return connect_refusal(source, error)
    return refusal(source, error.sqlstate, error.diag.message_primary or "")
