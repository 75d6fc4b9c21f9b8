"""What a server's "no" means: a SQLSTATE is `SourceUnavailable` (try again) or `SourceRefused` (act first).

Rules: the sentence names the source and never shows the DSN, a password or a row; the server's own words are kept where
they cannot hold any of these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

import psycopg

from cdc_merge.errors import CdcMergeError, SourceRefused, SourceUnavailable

_REFUSED: Final[dict[str, tuple[str, str]]] = {
    "28": ("authentication", "Check user and password of the DSN and the server's pg_hba.conf."),
    "3D000": ("database_missing", "Check the database name in the DSN."),
    "57P04": ("database_missing", "The database was dropped while it was read."),
    "25006": ("configuration", "The server is a standby; create the slot at its primary, or read there."),
    "42": ("configuration", "The server does not know what was asked; `cdc-merge doctor` shows its version."),
    "42501": ("not_permitted", "Grant what is missing; `cdc-merge source grants` prints the SQL."),
    "42704": ("slot_missing", "Check the names of slot and publication; `cdc-merge doctor` shows what exists."),
    "0A": ("configuration", "The server cannot do what was asked; `cdc-merge doctor` shows its version and limits."),
    "22023": ("configuration", "The server does not accept an option; `cdc-merge doctor` shows its version."),
    "42601": ("configuration", "Check the names of slot and publication."),
    "42602": ("configuration", "A slot's name has only lower-case letters, digits and underscores."),
    "53400": ("configuration", "Raise max_replication_slots on the server, or drop a slot that nobody uses."),
    "55000": ("configuration", "Run `cdc-merge doctor` on this source."),
    "58P01": ("configuration", "A file is missing in the server's installation or data; its log says which."),
}
"""By SQLSTATE or its class; everything else may pass by itself and is tried again."""

_LOST: Final = ("slot_lost", "WAL that the slot needs is gone: take a new first copy with `cdc-merge source resync`.")
_BY_WORDS: Final = (
    ("55000", r"invalidated|exceeded the maximum reserved size|can no longer", _LOST),
    ("55000", r"wal_level", ("wal_level", "Set wal_level = logical on the server and restart it.")),
    ("58P01", r"WAL", _LOST),
    (
        "42704",
        r"publication",
        ("publication_missing", "Create the publication; `cdc-merge source grants` prints the SQL."),
    ),
    (
        "08P01",
        r"unsupported startup parameter|not supported",
        ("configuration", "Connect to the server itself: a pooler in between passes no replication on."),
    ),
)
"""Where one SQLSTATE means several things: (SQLSTATE, words, what it is)."""

# libpq gives no SQLSTATE for a connection that never came to be, only words; a server that answers in another language
# (lc_messages) is tried again, with its words shown. The server's words follow its severity, a colon and two spaces.
_SERVER_WORDS: Final = re.compile(r"(?:failed: [^:\n]+|FATAL|ERROR):  (.*)")
_CONNECT_WORDS: Final = (
    (r"password authentication failed|no password supplied|authentication failed", "28P01"),
    (
        r"no pg_hba\.conf entry|is not permitted to log in|role .* does not exist|client certificate|no such user",
        "28000",
    ),
    (r"database .* does not exist|no such database", "3D000"),
    (r"unsupported startup parameter|replication .*not supported", "08P01"),
    (r"permission denied|must be superuser or replication role", "42501"),
    (r"wal_level", "55000"),
    (r"too many (clients|connections)|remaining connection slots|exceeds max_wal_senders|max_client_conn", "53300"),
    (r"starting up|shutting down|recovery mode|not yet accepting|not accepting", "57P03"),
)


class _Trouble(NamedTuple):
    """What libpq says (a pattern), and what we say of it. Without a `problem` it may pass, and is tried again."""

    words: str
    why: str
    problem: str | None = None
    hint: str = "Check host, port and network; it is tried again."


_READ_CA: Final = "sslrootcert must name a file that this process may read and that holds the CA's certificate (PEM)."
_TROUBLES: Final = (
    _Trouble(
        "certificate verify failed",
        "its certificate was not issued by the CA that sslrootcert names, or has expired",
        "tls",
        "Give the certificate of the CA that issued the server's as sslrootcert, or renew the server's certificate.",
    ),
    _Trouble(
        "does not match host name",
        "its certificate is for another host name",
        "tls",
        "Write the name that is in the certificate as the DSN's host (hostaddr may say where that is).",
    ),
    _Trouble("root certificate file .* does not exist", "the CA file of its DSN does not exist", "tls", _READ_CA),
    _Trouble("could not read root certificate", "the CA file of its DSN cannot be read", "tls", _READ_CA),
    _Trouble(
        "does not support SSL",
        "it offers no TLS, which the DSN's sslmode demands",
        "tls",
        "Set ssl = on and a certificate on the server; nothing was sent without encryption.",
    ),
    _Trouble(
        "private key file|certificate file|load private key|alert unknown ca|alert certificate|certificate required",
        "our client certificate or its key cannot be used",
        "tls",
        "Check sslcert and sslkey: the key belongs to the certificate, and only its owner may read it (chmod 600).",
    ),
    _Trouble(
        "no password supplied",
        "it asks for a password and the DSN has none",
        "authentication",
        "Give one in the DSN (dsn_file keeps it out of the configuration) or in a passfile that only its owner may read.",
    ),
    _Trouble(
        "weak sslmode|connection is bad: invalid |definition of service|GSSAPI encryption required",
        "an option of its DSN is not valid",
        "configuration",
        "Check the options behind the ? of the DSN against the documentation of libpq.",
    ),
    _Trouble("closed the connection unexpectedly|has been closed unexpectedly", "it closed the connection"),
    _Trouble("Connection refused", "connection refused"),
    _Trouble("No such file or directory", "no such socket"),
    _Trouble("timeout expired", "no answer in time"),
    _Trouble("could not translate host name|failed to resolve host", "its host name is unknown"),
    _Trouble("SSL", "TLS failed"),
    _Trouble("No route to host", "no route to host"),
    _Trouble("Network is unreachable", "network unreachable"),
    _Trouble("", "no answer"),
)
"""The first that matches counts. libpq's own text is never shown: it may hold parts of a mistyped DSN."""


def refusal(source: str, sqlstate: str | None, words: str) -> CdcMergeError:
    """The error for a server's answer; `words` must be the server's, not libpq's."""
    said = f"Source {source}: the server says: {words.strip()}"
    by_words = (what for state, pattern, what in _BY_WORDS if state == sqlstate and re.search(pattern, words))
    known = next(by_words, None) or _REFUSED.get(sqlstate or "") or _REFUSED.get((sqlstate or "")[:2])
    if known is None:
        return SourceUnavailable(said, hint="It is tried again; if it stays, read the server's log.", sqlstate=sqlstate)
    problem, hint = known
    return SourceRefused(said, problem=problem, hint=hint, sqlstate=sqlstate)


def connect_refusal(source: str, error: psycopg.Error) -> CdcMergeError:
    """The error for a connection that never came to be, or that ended: only the server's own words are shown."""
    text = str(error)
    fatal = _SERVER_WORDS.search(text)
    if fatal:
        words = fatal.group(1)
        sqlstate = next((state for pattern, state in _CONNECT_WORDS if re.search(pattern, words)), None)
        return refusal(source, error.sqlstate or sqlstate, words)
    trouble = next(each for each in _TROUBLES if re.search(each.words, text))
    if trouble.problem is not None:
        sentence = f"Source {source}: the server cannot be used ({trouble.why})."
        return SourceRefused(sentence, problem=trouble.problem, hint=trouble.hint)
    return SourceUnavailable(
        f"Source {source}: the server cannot be reached ({trouble.why}).", hint=trouble.hint, sqlstate="08001"
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
