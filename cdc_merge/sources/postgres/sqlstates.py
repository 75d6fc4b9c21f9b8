"""Classification of a server's errors by SQLSTATE: `SourceUnavailable` (retry) or `SourceRefused` (an operator must act).

Rules: the sentence names the source and never shows the DSN, a password or a row; the server's message is shown where it
cannot contain any of these. The messages of `_VALUE_CLASSES` quote values: only the SQLSTATE and its standard name are shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

import psycopg

from cdc_merge.errors import CdcMergeError, SourceRefused, SourceUnavailable

VALUE_UNREADABLE: Final = "value_unreadable"
"""The problem of a value that the server cannot send: it fails again on every attempt, and so does all behind it."""

_VALUE_CLASSES: Final = ("22", "23", "P0", "XX")
_VALUE_HINT: Final = (
    "Nothing was merged beyond it; the slot retains the WAL, other sources go on. The server's log names the value: repair the "
    "row (or the publication's row filter), then run `cdc-merge source resync {source}`, which reads the mapped tables again."
)

_REFUSED: Final[dict[str, tuple[str, str]]] = {
    "22": (VALUE_UNREADABLE, _VALUE_HINT),
    "23": (VALUE_UNREADABLE, _VALUE_HINT),
    "28": ("authentication", "Check user and password of the DSN and the server's pg_hba.conf."),
    "3D000": ("database_missing", "Check the database name in the DSN."),
    "57P04": ("database_missing", "The database was dropped while it was read."),
    "25006": ("configuration", "The server is a standby; create the slot at its primary, or read there."),
    "42": ("configuration", "The server does not know this command; `cdc-merge doctor` shows its version."),
    "42501": ("not_permitted", "Grant the missing privileges; `cdc-merge source grants` prints the SQL."),
    "42704": ("slot_missing", "Check the names of slot and publication; `cdc-merge doctor` shows what exists."),
    "0A": (
        "configuration",
        "The server does not support this command; `cdc-merge doctor` shows its version and limits.",
    ),
    "22023": ("configuration", "The server does not accept an option; `cdc-merge doctor` shows its version."),
    "42601": ("configuration", "Check the names of slot and publication."),
    "42602": ("configuration", "A slot's name has only lower-case letters, digits and underscores."),
    "53400": ("configuration", "Raise max_replication_slots on the server, or drop an unused slot."),
    "55000": ("configuration", "Run `cdc-merge doctor` on this source."),
    "58P01": ("configuration", "A file is missing in the server's installation or data; check its log."),
}
"""(problem, hint) by SQLSTATE or its class; any other SQLSTATE may be temporary and is retried."""

_LOST: Final = ("slot_lost", "WAL that the slot needs was removed: take a new snapshot with `cdc-merge source resync`.")
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
        ("configuration", "Connect to the server directly: a pooler in between does not support replication."),
    ),
)
"""Where one SQLSTATE has several meanings: (SQLSTATE, pattern of the message, (problem, hint))."""

# libpq gives no SQLSTATE for a connection that was not established, only a message; a server that answers in another language
# (lc_messages) is retried, and its message shown. The server's message follows its severity, a colon and two spaces.
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


class _ConnectFailure(NamedTuple):
    """A pattern of libpq's message, and our sentence for it. Without a `problem` it may be temporary and is retried."""

    words: str
    why: str
    problem: str | None = None
    hint: str = "Check host, port and network; the reader retries."


_READ_CA: Final = "sslrootcert must name a file that this process may read and that holds the CA's certificate (PEM)."
_CONNECT_FAILURES: Final = (
    _ConnectFailure(
        "certificate verify failed",
        "its certificate was not issued by the CA that sslrootcert names, or has expired",
        "tls",
        "Give the certificate of the CA that issued the server's as sslrootcert, or renew the server's certificate.",
    ),
    _ConnectFailure(
        "does not match host name",
        "its certificate is for another host name",
        "tls",
        "Write the name that is in the certificate as the DSN's host (hostaddr may say where that is).",
    ),
    _ConnectFailure(
        "root certificate file .* does not exist", "the CA file of its DSN does not exist", "tls", _READ_CA
    ),
    _ConnectFailure("could not read root certificate", "the CA file of its DSN cannot be read", "tls", _READ_CA),
    _ConnectFailure(
        "does not support SSL",
        "it offers no TLS, which the DSN's sslmode demands",
        "tls",
        "Set ssl = on and a certificate on the server; nothing was sent without encryption.",
    ),
    _ConnectFailure(
        "private key file|certificate file|load private key|alert unknown ca|alert certificate|certificate required",
        "our client certificate or its key cannot be used",
        "tls",
        "Check sslcert and sslkey: the key belongs to the certificate, and only its owner may read it (chmod 600).",
    ),
    _ConnectFailure(
        "no password supplied",
        "it requires a password and the DSN has none",
        "authentication",
        "Give one in the DSN (dsn_file keeps it out of the configuration) or in a passfile that only its owner may read.",
    ),
    _ConnectFailure(
        "weak sslmode|connection is bad: invalid |definition of service|GSSAPI encryption required",
        "an option of its DSN is not valid",
        "configuration",
        "Check the options behind the ? of the DSN against the documentation of libpq.",
    ),
    _ConnectFailure("closed the connection unexpectedly|has been closed unexpectedly", "it closed the connection"),
    _ConnectFailure("Connection refused", "connection refused"),
    _ConnectFailure("No such file or directory", "no such socket"),
    _ConnectFailure("timeout expired", "no answer in time"),
    _ConnectFailure("could not translate host name|failed to resolve host", "its host name is unknown"),
    _ConnectFailure("SSL", "TLS failed"),
    _ConnectFailure("No route to host", "no route to host"),
    _ConnectFailure("Network is unreachable", "network unreachable"),
    _ConnectFailure("", "no answer"),
)
"""The first match counts. libpq's own text is never shown: it may contain parts of a mistyped DSN."""


def refusal(source: str, sqlstate: str | None, words: str) -> CdcMergeError:
    """The error for a server's error message; `words` must be the server's, not libpq's."""
    sentence = f"Source {source}: {server_sentence(sqlstate, words)}"
    by_words = (what for state, pattern, what in _BY_WORDS if state == sqlstate and re.search(pattern, words))
    refused = next(by_words, None) or _REFUSED.get(sqlstate or "") or _REFUSED.get((sqlstate or "")[:2])
    if refused is None:
        return SourceUnavailable(
            sentence, hint="The reader retries; if this persists, check the server's log.", sqlstate=sqlstate
        )
    problem, hint = refused[0], refused[1].replace("{source}", source)
    return SourceRefused(sentence, problem=problem, hint=hint, sqlstate=sqlstate)


def server_sentence(sqlstate: str | None, words: str) -> str:
    """What the server answered; without its own words where they may quote a value."""
    if sqlstate is None or sqlstate[:2] not in _VALUE_CLASSES:
        return f"the server says: {words.strip()}"
    try:
        standard_name = psycopg.errors.lookup(sqlstate).__name__.rstrip("_")
    except KeyError:
        return f"the server answers with SQLSTATE {sqlstate}."
    return f"the server answers with SQLSTATE {sqlstate} ({standard_name})."


def connect_refusal(source: str, error: psycopg.Error) -> CdcMergeError:
    """The error for a connection that was not established, or that ended: only the server's own message is shown."""
    text = str(error)
    fatal = _SERVER_WORDS.search(text)
    if fatal:
        words = fatal.group(1)
        sqlstate = next((state for pattern, state in _CONNECT_WORDS if re.search(pattern, words)), None)
        return refusal(source, error.sqlstate or sqlstate, words)
    failure = next(each for each in _CONNECT_FAILURES if re.search(each.words, text))
    if failure.problem is not None:
        sentence = f"Source {source}: the server cannot be used ({failure.why})."
        return SourceRefused(sentence, problem=failure.problem, hint=failure.hint)
    return SourceUnavailable(
        f"Source {source}: the server cannot be reached ({failure.why}).", hint=failure.hint, sqlstate="08001"
    )


@contextmanager
def server_errors(source: str) -> Iterator[None]:
    """Convert psycopg's exceptions inside the block into this project's errors."""
    try:
        yield
    except psycopg.Error as error:
        raise query_refusal(source, error) from None


def query_refusal(source: str, error: psycopg.Error) -> CdcMergeError:
    """The error for a failure on an open connection."""
    if error.sqlstate is None:
        return connect_refusal(source, error)
    return refusal(source, error.sqlstate, error.diag.message_primary or "")
