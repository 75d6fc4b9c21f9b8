"""Every exception of the project: one base class, data, one sentence, a hint for the operator.

Rules: row values and secrets never appear in a message; positions, names, types and lengths do.
An error says whether its effect happened: *refused* (it did not) or *unknown* (it may have).
"""

from __future__ import annotations


class CdcMergeError(Exception):
    """Something went wrong: `str(error)` is one sentence, `hint` is the operator's next step.

    `exit_code` is what a command ends with when this error reaches its edge (contract §2).
    """

    exit_code = 1

    def __init__(self, sentence: str, *, hint: str = "") -> None:
        super().__init__(sentence)
        self.hint = hint


class ConfigError(CdcMergeError):
    """The configuration cannot be used. `problems` holds every one of them, not only the first."""

    exit_code = 78

    def __init__(self, sentence: str, *, hint: str = "", problems: tuple[str, ...] = ()) -> None:
        super().__init__(sentence, hint=hint)
        self.problems = problems


def error_location(error: BaseException) -> str:
    """Type and place of a mistake of ours, for people. Its message may hold row values, and is left out."""
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
            hint="Keep the recording and report it; the stream goes on behind this message.",
        )
        self.offset = offset
        self.length = length


class UnreadableValue(CdcMergeError):
    """A column's value is not of the type it is mapped to. The record is parked, the stream goes on."""


class SourceUnavailable(CdcMergeError):
    """The source cannot be reached at present; trying again is right (SQLSTATE class 08, 57P0x, 53300, 55006)."""

    exit_code = 69

    def __init__(self, sentence: str, *, hint: str = "", sqlstate: str | None = None) -> None:
        super().__init__(sentence, hint=hint)
        self.sqlstate = sqlstate


class SourceRefused(CdcMergeError):
    """The source answers and says no; trying again does not help until a person acts.

    `problem` is a stable name: `slot_lost`, `slot_missing`, `slot_recreated`, `server_restored`, `failed_over`,
    `other_server`, `publication_missing`, `publication_changed`, `wal_level`, `not_permitted`, `authentication`, `tls`, `database_missing`,
    `table_missing`, `column_missing`, `configuration`, `stream_unreadable`, `transaction_too_large`.
    """

    def __init__(self, sentence: str, *, problem: str, hint: str = "", sqlstate: str | None = None) -> None:
        super().__init__(sentence, hint=hint)
        self.problem = problem
        self.sqlstate = sqlstate
        self.exit_code = 77 if problem in ("not_permitted", "authentication") else 1


class StoreUnavailable(CdcMergeError):
    """The store cannot be opened, is held by another sidecar, or refused a commit (nothing was kept)."""

    exit_code = 69


class StoreHeld(StoreUnavailable):
    """Another program holds the store's file: nothing was begun. Trying the same again is right."""


class NotFound(CdcMergeError):
    """The record, conflict, source or field that was asked for does not exist."""


class HistoryRemoved(NotFound):
    """The past that was asked about is older than `history.retention`: its log is gone, what it meant is kept."""


class NotWritten(CdcMergeError):
    """What was asked for would write to sources, which this version does not do: refused, nothing was written."""


class AddressUnavailable(CdcMergeError):
    """The HTTP listener cannot have the address it was given; nothing is listening."""

    exit_code = 69
