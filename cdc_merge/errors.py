"""Every exception of the project: one base class, data, one sentence, a hint for the operator.

Rules: row values and secrets never appear in a message; positions, names, types and lengths do.
An error says whether its effect happened: *refused* (it did not) or *unknown* (it may have).
"""

from __future__ import annotations


class CdcMergeError(Exception):
    """The base of all our errors: `str(error)` is one sentence, `hint` is the operator's next step.

    `exit_code` is the exit code of a command that this error ends (contract §2).
    """

    exit_code = 1

    def __init__(self, sentence: str, *, hint: str = "") -> None:
        super().__init__(sentence)
        self.hint = hint


class ConfigError(CdcMergeError):
    """The configuration is invalid. `problems` lists all problems, not only the first."""

    exit_code = 78

    def __init__(self, sentence: str, *, hint: str = "", problems: tuple[str, ...] = ()) -> None:
        super().__init__(sentence, hint=hint)
        self.problems = problems


def error_location(error: BaseException) -> str:
    """Type and place of an internal error, for people. Its message may hold row values and is left out."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f" in {place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place is not None else ""
    return f"an unexpected {type(error).__name__}{where}"


class ProtocolError(CdcMergeError):
    """A payload does not follow the protocol (pgoutput, protocol docs "Logical Replication Message Formats").

    `offset` is where reading stopped, `length` the size of the payload in bytes.
    """

    def __init__(self, sentence: str, *, offset: int = 0, length: int = 0) -> None:
        super().__init__(
            f"{sentence} (offset {offset} of {length} bytes)",
            hint="Keep the recording and report it; the stream continues after this message.",
        )
        self.offset = offset
        self.length = length


class UnreadableValue(CdcMergeError):
    """A column's value is not of the type it is mapped to. The row is parked, the stream continues."""


class SourceUnavailable(CdcMergeError):
    """The source cannot be reached at present; retry (SQLSTATE class 08, 57P0x, 53300, 55006)."""

    exit_code = 69

    def __init__(self, sentence: str, *, hint: str = "", sqlstate: str | None = None) -> None:
        super().__init__(sentence, hint=hint)
        self.sqlstate = sqlstate


class SourceRefused(CdcMergeError):
    """The source refuses; a retry does not help until a person acts.

    `problem` is a stable name: `slot_lost`, `slot_missing`, `slot_recreated`, `server_restored`, `failed_over`,
    `other_server`, `publication_missing`, `publication_changed`, `wal_level`, `not_permitted`, `authentication`, `tls`, `database_missing`,
    `table_missing`, `column_missing`, `configuration`, `stream_unreadable`, `value_unreadable`, `transaction_too_large`.
    """

    def __init__(self, sentence: str, *, problem: str, hint: str = "", sqlstate: str | None = None) -> None:
        super().__init__(sentence, hint=hint)
        self.problem = problem
        self.sqlstate = sqlstate
        self.exit_code = 77 if problem in ("not_permitted", "authentication") else 1


class StoreUnavailable(CdcMergeError):
    """The store cannot be opened, is locked by another sidecar, or refused a commit (nothing was saved)."""

    exit_code = 69


class StoreHeld(StoreUnavailable):
    """Another program holds the store's file: nothing began. Retry; the batch is kept."""


class NotFound(CdcMergeError):
    """The requested record, conflict, source or field does not exist."""


class HistoryRemoved(NotFound):
    """The requested time is before `history.retention`: its log is pruned, only the resulting state is kept."""


class NotWritten(CdcMergeError):
    """Refused: the request would write to sources, which this version does not do. Nothing was written."""


class AddressUnavailable(CdcMergeError):
    """The HTTP listener cannot bind its address; nothing is listening."""

    exit_code = 69
