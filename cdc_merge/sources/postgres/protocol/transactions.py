"""Step 1, transactions: the assembler collects pgoutput messages into complete transactions of `model.RowChange`. Pure.

Rules
- The relation of an oid is defined by this connection's own Relation messages: one assembler per connection.
- A transaction is delivered at its Commit and never before, also when it has no row: it moves the position.
- Ordinals count the row changes of one table name within the transaction; they are the same on every delivery.
- An unchanged TOASTed column is filled from a complete old row, and otherwise stays UNCHANGED.
- An unreadable row is parked and takes its ordinal; the stream continues. An unreadable message that later ones depend on
  (begin, commit, origin, relation, and those of streamed or prepared transactions, which we never request) is an error of
  the connection.
- Logical messages outside a transaction are not ordered with commits; they are dropped, as those of other programs are.
- The rows of a large transaction need not stay in memory: the caller of `feed` spills them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from cdc_merge.values.type_names import catalog_name, qualified_name

MAX_TRANSACTION_ROWS: Final = 100_000_000
"""Rows of one open transaction, in memory or spilled: some 20 GB of a disk at 200 bytes a row."""

OUR_MESSAGES: Final = "cdc_merge."
"""Logical messages with other prefixes belong to other programs, and may be many and large."""

_ROW_KINDS: Final = b"IUD"
_STRUCTURE: Final = b"BCOR"
_NOT_REQUESTED: Final = b"SEcAbPKrp"  # a stream's start, stop, commit, abort; and those of a prepared transaction


class SpilledChanges(Protocol):
    """Takes the rows of one transaction, in order, and gives them all back at its end. A `sources/spill.RowSpill`."""

    def add(self, changes: Sequence[RowChange]) -> None: ...
    def finish(self) -> Sequence[RowChange]: ...


def _without_catalog(table: str, oids: Sequence[int]) -> Mapping[int, str]:
    return {}


class Assembler:
    """Takes the pgoutput payloads of one connection in order; gives a Transaction for each Commit.

    `park` is called for unreadable rows, `tally` counts messages. `catalog_types` gives the names of a table's types that are
    not built in, by OID: a Type message does not say whether `_status` is an array or an enum's own name.
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
        self.catalog_types: Callable[[str, Sequence[int]], Mapping[int, str]] = _without_catalog
        self._park = park
        self._tally = Tally() if tally is None else tally
        self._relations: dict[int, tuple[Relation, str]] = {}
        self._type_names: dict[int, str] = {}
        self._changes: list[RowChange] = []
        self._spill: SpilledChanges | None = None
        self._spilled_rows = 0
        self._ordinals: dict[str, int] = {}
        self._messages: list[Message] = []
        self._origin: str | None = None
        self._commit_lsn = 0
        self.is_open = False
        self.xid = 0  # of the transaction that began last
        # By the message's type; each entry takes that type only, which the type of a dict cannot express.
        self._handlers = cast(
            "dict[type[object], Callable[[object], Transaction | None]]",
            {
                pgoutput.UpdateMessage: self._update,
                pgoutput.InsertMessage: self._insert,
                pgoutput.DeleteMessage: self._delete,
                pgoutput.BeginMessage: self._begin,
                pgoutput.CommitMessage: self._commit,
                pgoutput.OriginMessage: self._on_origin,
                Relation: self._relation,
                pgoutput.TypeMessage: self._type,
                pgoutput.TruncateMessage: self._truncate,
                pgoutput.LogicalMessage: self._message,
            },
        )

    def feed(self, payload: pgoutput.Payload, start: int = 0) -> Transaction | None:
        """The transaction that this payload completes. ProtocolError when the rest of the stream cannot be read."""
        try:
            message = pgoutput.decode(payload, start)
        except ProtocolError as error:
            self._unreadable(payload, start, error)
            return None
        return self._handlers[type(message)](message)

    # ---------------------------------------------------------------- transactions

    def _begin(self, message: pgoutput.BeginMessage) -> None:
        if self.is_open:
            raise ProtocolError("A transaction began inside another one.")
        self._clear()
        self._commit_lsn, self.xid = message.commit_lsn, message.xid
        self.is_open = True

    def _commit(self, message: pgoutput.CommitMessage) -> Transaction:
        if not self.is_open or message.commit_lsn != self._commit_lsn:
            raise ProtocolError("A commit does not belong to the open transaction.")
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

    def spill(self, new_spill: Callable[[], SpilledChanges], max_rows: int = MAX_TRANSACTION_ROWS) -> None:
        """Spill the rows of the open transaction. SourceRefused when the transaction has too many rows."""
        if self._spilled_rows + len(self._changes) > max_rows:
            raise self._too_large(max_rows)
        if self._spill is None:
            self._spill = new_spill()
        self._spill.add(self._changes)
        self._tally.rows(self._changes)
        self._spilled_rows += len(self._changes)
        self._changes = []

    def _all_changes(self) -> Sequence[RowChange]:
        self._tally.rows(self._changes)
        if self._spill is None:
            return tuple(self._changes)
        self._spill.add(self._changes)
        return self._spill.finish()

    def _clear(self) -> None:
        self._changes = []
        self._spill, self._spilled_rows = None, 0
        self._ordinals = {}
        self._messages = []
        self._origin = None
        self.is_open = False

    def _on_origin(self, message: pgoutput.OriginMessage) -> None:
        self._origin = message.name

    def _message(self, message: pgoutput.LogicalMessage) -> None:
        self._tally.message()
        if message.transactional and message.prefix.startswith(OUR_MESSAGES):
            self._messages.append(Message(message.prefix, message.content, transactional=True))

    # ---------------------------------------------------------------- relations

    def _type(self, message: pgoutput.TypeMessage) -> None:
        # A domain over a built-in type has the base type's name, without pg_catalog.
        is_built_in = message.namespace in ("", "pg_catalog")
        name = message.name if is_built_in else qualified_name(message.namespace, message.name)
        self._type_names[message.oid] = name

    def _relation(self, message: Relation) -> None:
        oids = [column.type_oid for column in message.columns if not catalog_name(column.type_oid)]
        names = self.catalog_types(message.table, oids) if oids else {}
        columns = tuple(
            column._replace(type_name=names.get(column.type_oid) or self._type_name(column.type_oid))
            for column in message.columns
        )
        relation = message._replace(columns=columns)
        self._relations[message.oid] = (relation, relation.table)

    def _type_name(self, oid: int) -> str:
        return self._type_names.get(oid) or catalog_name(oid)

    # ---------------------------------------------------------------- rows

    def _insert(self, message: pgoutput.InsertMessage) -> None:
        self._append(INSERT, message.relation_oid, None, message.new, old_is_full=False)

    def _update(self, message: pgoutput.UpdateMessage) -> None:
        oid, old, old_is_full, new, has_unchanged = message
        if has_unchanged and old_is_full and old is not None and len(old) == len(new):
            new = tuple(before if value is UNCHANGED else value for before, value in zip(old, new, strict=True))
        if has_unchanged:
            self._count_toast_absent(oid, new)
        self._append(UPDATE, oid, old, new, old_is_full=old_is_full)

    def _count_toast_absent(self, oid: int, row: pgoutput.TupleData) -> None:
        absent, announced = row.count(UNCHANGED), self._relations.get(oid)
        if absent and announced is not None:
            self._tally.of_table(TOAST_ABSENT, announced[1], absent)

    def _delete(self, message: pgoutput.DeleteMessage) -> None:
        self._append(DELETE, message.relation_oid, message.old, None, old_is_full=message.old_is_full)

    def _truncate(self, message: pgoutput.TruncateMessage) -> None:
        for oid in message.relation_oids:
            announced = self._relations.get(oid)
            if announced is not None:
                self._tally.of_table(TRUNCATES, announced[1])
            self._append(TRUNCATE, oid, None, None, old_is_full=False)

    def _append(
        self,
        operation: str,
        oid: int,
        old: pgoutput.TupleData | None,
        new: pgoutput.TupleData | None,
        *,
        old_is_full: bool,
    ) -> None:
        announced = self._relations.get(oid)
        if announced is None:
            self._park(
                Parked(self._source, f"oid {oid}", f"A row ({operation}) of a relation without a Relation message.")
            )
            return
        relation, table = announced
        row = old if new is None else new
        if row is not None and len(row) != len(relation.columns):
            self._skip(table, f"A row has {len(row)} columns where the relation has {len(relation.columns)}.")
            return
        ordinal = self._ordinals.get(table, 0)
        self._ordinals[table] = ordinal + 1
        self._changes.append(fast_new(RowChange, (operation, relation, old, old_is_full, new, ordinal)))

    def _too_large(self, max_rows: int) -> SourceRefused:
        return SourceRefused(
            f"Source {self._source}: a transaction has more than {max_rows} rows; none was merged.",
            problem="transaction_too_large",
            hint=f"Split it into several transactions, or take a new snapshot: `cdc-merge source resync {self._source}`.",
        )

    # ---------------------------------------------------------------- unreadable messages

    def _unreadable(self, payload: pgoutput.Payload, start: int, error: ProtocolError) -> None:
        kind = payload[start] if start < len(payload) else 0
        if start < len(payload) and kind not in pgoutput.KINDS:
            self._tally.add(UNKNOWN_MESSAGES)
        if kind in _STRUCTURE or kind in _NOT_REQUESTED:
            raise error
        announced = None
        if kind in _ROW_KINDS:
            announced = self._relations.get(int.from_bytes(payload[start + 1 : start + 5], "big"))
        if announced is None:
            self._park(Parked(self._source, "", str(error)))
        else:
            self._skip(announced[1], str(error))

    def skip_frame(self, kind: int) -> None:
        """Skip a CopyData payload that is neither XLogData nor a keepalive."""
        self._tally.add(UNKNOWN_MESSAGES)
        self._park(Parked(self._source, "", f"A CopyData payload of unknown kind {chr(kind)!r}."))

    def _skip(self, table: str, reason: str) -> None:
        self._ordinals[table] = self._ordinals.get(table, 0) + 1
        self._park(Parked(self._source, table, reason))
