"""Step 1, the rows: pgoutput messages become whole transactions of `model.RowChange`. Pure.

Rules
- What a relation id means is known only from this connection's own Relation messages: one assembler per connection.
- A transaction is delivered at its Commit and never before, also when it holds no row: it moves the position.
- Ordinals count the row changes of one table name within the transaction; they are the same on every delivery.
- An unchanged TOASTed column is filled from a full old row, and otherwise stays UNCHANGED.
- A row that cannot be read is parked and takes its ordinal; the stream goes on. A message that says how to read or where
  to place what follows (begin, commit, origin, relation, and those of streamed or prepared transactions, which we never
  ask for) is an error of the connection when it cannot be read.
- Logical messages outside a transaction are not ordered with commits; they are dropped, as those of other programs are.
- The rows of a large transaction need not be held in memory: whoever feeds says when they are laid aside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, cast

from cdc_merge.errors import ProtocolError, SourceRefused
from cdc_merge.model import (
    DELETE,
    INSERT,
    TRUNCATE,
    UNCHANGED,
    UPDATE,
    Message,
    Parked,
    Relation,
    RowChange,
    Transaction,
)
from cdc_merge.model.capture_counters import TOAST_ABSENT, TRUNCATES, UNKNOWN_MESSAGES, Tally
from cdc_merge.model.fast_new import fast_new
from cdc_merge.sources.postgres.protocol import pgoutput
from cdc_merge.sources.postgres.protocol.copy_data import MAX_LSN
from cdc_merge.sources.postgres.protocol.timelines import Timelines
from cdc_merge.values.type_names import catalog_name

MAX_TRANSACTION_ROWS: Final = 100_000_000
"""A transaction waits for its commit, its rows in memory or laid aside: some 20 GB of a disk at 200 bytes a row."""

OUR_MESSAGES: Final = "cdc_merge."
"""Logical messages of other prefixes are other people's, and may be many and large."""

_ROW_KINDS: Final = b"IUD"
_STRUCTURE: Final = b"BCOR"
_NOT_ASKED_FOR: Final = b"SEcAbPKrp"  # a stream's start, stop, commit, abort; and those of a prepared transaction


class SpilledChanges(Protocol):
    """Takes the rows of one transaction, in order, and gives them all back at its end."""

    def add(self, changes: Sequence[RowChange]) -> None: ...
    def finished(self) -> Sequence[RowChange]: ...


class Assembler:
    """Takes the payloads of one connection in order; gives a Transaction for each Commit.

    `park` is told about rows that could not be read, `tally` counts what came.
    """

    def __init__(
        self,
        source: str,
        system: str,
        timelines: Timelines,
        park: Callable[[Parked], None],
        tally: Tally | None = None,
    ) -> None:
        self._source = source
        self._system = system
        self.timelines = timelines
        self._park = park
        self._tally = Tally() if tally is None else tally
        self._relations: dict[int, tuple[Relation, str]] = {}
        self._type_names: dict[int, str] = {}
        self._changes: list[RowChange] = []
        self._aside: SpilledChanges | None = None
        self._aside_rows = 0
        self._ordinals: dict[str, int] = {}
        self._messages: list[Message] = []
        self._origin: str | None = None
        self._commit_lsn = 0
        self.is_open = False
        self.xid = 0  # of the transaction that began last
        # By the message's type; each entry takes that type only, which a dict cannot say.
        self._take = cast(
            "dict[type[object], Callable[[object], Transaction | None]]",
            {
                pgoutput.Update: self._update,
                pgoutput.Insert: self._insert,
                pgoutput.Delete: self._delete,
                pgoutput.Begin: self._begin,
                pgoutput.Commit: self._commit,
                pgoutput.Origin: self._set_origin,
                Relation: self._relation,
                pgoutput.TypeMessage: self._type,
                pgoutput.Truncate: self._truncate,
                pgoutput.LogicalMessage: self._message,
            },
        )

    def feed(self, payload: pgoutput.Payload, start: int = 0) -> Transaction | None:
        """The transaction that this payload completes. ProtocolError when the stream cannot be followed any more."""
        try:
            message = pgoutput.decode(payload, start)
        except ProtocolError as error:
            self._unreadable(payload, start, error)
            return None
        return self._take[type(message)](message)

    # ---------------------------------------------------------------- transactions

    def _begin(self, message: pgoutput.Begin) -> None:
        if self.is_open:
            raise ProtocolError("A transaction began inside another one.")
        self._clear()
        self._commit_lsn, self.xid = message.commit_lsn, message.xid
        self.is_open = True

    def _commit(self, message: pgoutput.Commit) -> Transaction:
        if not self.is_open or message.commit_lsn != self._commit_lsn:
            raise ProtocolError("A commit came that is not of the transaction before it.")
        if not message.commit_lsn < message.end_lsn <= MAX_LSN:
            raise ProtocolError("A commit ends at an impossible position.")
        transaction = Transaction(
            self._source,
            self._system,
            self.timelines.of(message.end_lsn),
            message.end_lsn,
            message.commit_us,
            self._origin,
            tuple(self._messages),
            self._all_changes(),
        )
        self._clear()
        return transaction

    def spill(self, anew: Callable[[], SpilledChanges]) -> None:
        """Hold no row of the open transaction in memory any more. SourceRefused when there are too many at all."""
        if self._aside_rows + len(self._changes) > MAX_TRANSACTION_ROWS:
            raise self._too_large()
        if self._aside is None:
            self._aside = anew()
        self._aside.add(self._changes)
        self._tally.rows(self._changes)
        self._aside_rows += len(self._changes)
        self._changes = []

    def _all_changes(self) -> Sequence[RowChange]:
        self._tally.rows(self._changes)
        if self._aside is None:
            return tuple(self._changes)
        self._aside.add(self._changes)
        return self._aside.finished()

    def _clear(self) -> None:
        self._changes = []
        self._aside, self._aside_rows = None, 0
        self._ordinals = {}
        self._messages = []
        self._origin = None
        self.is_open = False

    def _set_origin(self, message: pgoutput.Origin) -> None:
        self._origin = message.name

    def _message(self, message: pgoutput.LogicalMessage) -> None:
        self._tally.message()
        if message.transactional and message.prefix.startswith(OUR_MESSAGES):
            self._messages.append(Message(message.prefix, message.content, transactional=True))

    # ---------------------------------------------------------------- relations

    def _type(self, message: pgoutput.TypeMessage) -> None:
        self._type_names[message.oid] = message.name

    def _relation(self, message: Relation) -> None:
        columns = tuple(column._replace(type_name=self._type_name(column.type_oid)) for column in message.columns)
        relation = message._replace(columns=columns)
        self._relations[message.oid] = (relation, relation.table)

    def _type_name(self, oid: int) -> str:
        return self._type_names.get(oid) or catalog_name(oid)

    # ---------------------------------------------------------------- rows

    def _insert(self, message: pgoutput.Insert) -> None:
        self._append(INSERT, message.relation_oid, None, message.new, full=False)

    def _update(self, message: pgoutput.Update) -> None:
        oid, old, old_is_full, new, has_unchanged = message
        if has_unchanged and old_is_full and old is not None and len(old) == len(new):
            new = tuple(before if cell is UNCHANGED else cell for before, cell in zip(old, new, strict=True))
        if has_unchanged:
            self._count_absent(oid, new)
        self._append(UPDATE, oid, old, new, full=old_is_full)

    def _count_absent(self, oid: int, row: pgoutput.Cells) -> None:
        absent, known = row.count(UNCHANGED), self._relations.get(oid)
        if absent and known is not None:
            self._tally.of_table(TOAST_ABSENT, known[1], absent)

    def _delete(self, message: pgoutput.Delete) -> None:
        self._append(DELETE, message.relation_oid, message.old, None, full=message.old_is_full)

    def _truncate(self, message: pgoutput.Truncate) -> None:
        for oid in message.relation_oids:
            known = self._relations.get(oid)
            if known is not None:
                self._tally.of_table(TRUNCATES, known[1])
            self._append(TRUNCATE, oid, None, None, full=False)

    def _append(
        self, operation: str, oid: int, old: pgoutput.Cells | None, new: pgoutput.Cells | None, *, full: bool
    ) -> None:
        known = self._relations.get(oid)
        if known is None:
            self._park(Parked(self._source, f"oid {oid}", f"A row ({operation}) came of a relation never announced."))
            return
        relation, table = known
        row = old if new is None else new
        if row is not None and len(row) != len(relation.columns):
            self._skip(table, f"A row has {len(row)} columns where the relation has {len(relation.columns)}.")
            return
        ordinal = self._ordinals.get(table, 0)
        self._ordinals[table] = ordinal + 1
        self._changes.append(fast_new(RowChange, (operation, relation, old, full, new, ordinal)))

    def _too_large(self) -> SourceRefused:
        return SourceRefused(
            f"Source {self._source}: a transaction has more than {MAX_TRANSACTION_ROWS} rows; none was merged.",
            problem="transaction_too_large",
            hint=f"Make it several transactions, or take a new first copy: `cdc-merge source resync {self._source}`.",
        )

    # ---------------------------------------------------------------- what cannot be read

    def _unreadable(self, payload: pgoutput.Payload, start: int, error: ProtocolError) -> None:
        kind = payload[start] if start < len(payload) else 0
        if start < len(payload) and kind not in pgoutput.KINDS:
            self._tally.add(UNKNOWN_MESSAGES)
        if kind in _STRUCTURE or kind in _NOT_ASKED_FOR:
            raise error
        known = None
        if kind in _ROW_KINDS:
            known = self._relations.get(int.from_bytes(payload[start + 1 : start + 5], "big"))
        if known is None:
            self._park(Parked(self._source, "", str(error)))
        else:
            self._skip(known[1], str(error))

    def pass_over(self, kind: int) -> None:
        """A frame came that holds neither data nor a keepalive."""
        self._tally.add(UNKNOWN_MESSAGES)
        self._park(Parked(self._source, "", f"A frame of unknown kind {chr(kind)!r} came in the stream."))

    def _skip(self, table: str, reason: str) -> None:
        self._ordinals[table] = self._ordinals.get(table, 0) + 1
        self._park(Parked(self._source, table, reason))
