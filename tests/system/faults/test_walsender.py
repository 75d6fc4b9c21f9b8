"""What real servers say rarely or never: each has a name and an end, nothing is a gap in silence or a loop without pause."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from cdc_merge.demo.servers import DemoServer
from cdc_merge.model import UNCHANGED, Parked, RowChange, SourceChanged
from cdc_merge.model.capture_counters import COMMIT_ORDER, DUPLICATES, GAPS, UNKNOWN_MESSAGES
from cdc_merge.sources.postgres.reader_limits import ReaderLimits
from tests.recordings import payloads as wire
from tests.support.databases import fresh_database
from tests.system.faults.proxy import Proxy, socket_of
from tests.system.faults.walsender import (
    COMMAND_COMPLETE,
    COPY_DONE,
    HANG_UP,
    READY,
    Script,
    ScriptedServer,
    copied,
    data,
    error,
    keepalive,
    message,
    notice,
    parameter,
)
from tests.system.postgres.reading import Reading, confirmed_lsn, retries, run, wait_for

SHORT_PAUSES = ReaderLimits(retry_longest_s=0.2)

TABLES = {"public.customer": ("id", "name")}
COLUMNS = [("id", 23, True), ("name", 25, False)]
RELATION = data(wire.relation(5, "public.customer", COLUMNS))


class Stage(NamedTuple):
    """A real database whose slot stands at `lsn`, and `play` to read a script with it."""

    dsn: str
    lsn: int
    slot: str
    play: Callable[..., tuple[Reading, ScriptedServer]]

    def transaction(self, number: int, *messages: bytes) -> tuple[bytes, ...]:
        """The messages between begin and commit of the `number`th transaction behind the slot's position."""
        start = self.lsn + 1000 * number
        return (data(wire.begin(start - 100)), *messages, data(wire.commit(start - 100, start)))

    def row(self, number: int) -> tuple[bytes, ...]:
        """A transaction that inserts row `number`."""
        return self.transaction(number, data(wire.insert(5, [b"%d" % number, b"a"])))


@pytest.fixture(scope="module")
def slot(postgres_server: DemoServer) -> Iterator[tuple[str, str]]:
    """A database and its slot. No script ever moves it."""
    with fresh_database(postgres_server) as dsn:
        run(
            dsn,
            "CREATE TABLE customer (id int PRIMARY KEY, name text)",
            "CREATE PUBLICATION cdc_merge FOR TABLE customer",
            "SELECT pg_create_logical_replication_slot('scripted', 'pgoutput')",
        )
        yield dsn, "scripted"


@pytest.fixture
def stage(slot: tuple[str, str], postgres_server: DemoServer) -> Iterator[Stage]:
    dsn, name = slot
    with ExitStack() as ending:

        def play(*scripts: Script) -> tuple[Reading, ScriptedServer]:
            server = ending.enter_context(ScriptedServer(socket_of(postgres_server), scripts))
            reading = ending.enter_context(
                Reading(server.dsn(dsn), TABLES, slot=name, snapshot="never", limits=SHORT_PAUSES)
            )
            return reading.start(), server

        yield Stage(dsn, confirmed_lsn(dsn, name), name, play)


def came(reading: Reading) -> list[bytes]:
    """The ids of the rows that came, in order."""
    return [key for change in reading.streamed if (key := (change.new or (b"",))[0]) and isinstance(key, bytes)]


def until_came(reading: Reading, *ids: bytes) -> None:
    reading.until(lambda: len(came(reading)) >= len(ids), f"rows {ids} came")
    assert came(reading) == list(ids)


def parked(reading: Reading) -> list[str]:
    return [fact.reason for fact in reading.facts if isinstance(fact, Parked)]


# ---------------------------------------------------------------- what is passed over, counted, and read on behind


ODD: dict[str, tuple[Sequence[bytes], str]] = {
    "an unknown message type": ([data(b"Z" + bytes(20))], "'Z' is not part of protocol 1"),
    "a row that is cut short": ([data(wire.insert(5, [b"9", b"lost"])[:-2])], "does not end where"),
    "a row with a byte too many": ([data(wire.insert(5, [b"9", b"lost"]) + b"?")], "does not end where"),
    "a row in binary form": ([data(wire.insert(5, [b"9"]).replace(b"t\0\0\0\1", b"b\0\0\0\1"))], "binary form"),
    "a row with too many columns": ([data(wire.insert(5, [b"9", b"a", b"b"]))], "3 columns where"),
    "a row that was never announced": ([data(wire.insert(99, [b"9", b"lost"]))], "without a Relation message"),
    "data cut short inside its header": ([copied(b"w" + bytes(10))], "damaged or cut short"),
    "data without a message": ([copied(b"w" + bytes(24))], "damaged or cut short"),
    "a frame of unknown kind": ([copied(b"?whatever")], "unknown kind '?'"),
    "a truncate that claims too many tables": ([data(b"T\xff\xff\xff\xff\0")], "damaged or cut short"),
}


UNKNOWN = ("an unknown message type", "a frame of unknown kind")


@pytest.mark.parametrize("odd", ODD)
def test_one_unreadable_message_is_counted_and_the_rest_of_its_transaction_is_delivered(stage: Stage, odd: str) -> None:
    frames, reason = ODD[odd]
    last = data(wire.insert(5, [b"1", b"a"]))
    reading, server = stage.play(Script((RELATION, *stage.transaction(1, *frames, last), *stage.row(2))))
    until_came(reading, b"1", b"2")
    (said,) = parked(reading)
    assert reason in said
    assert "lost" not in said, "no value is shown"
    assert counted(reading, UNKNOWN_MESSAGES) == (odd in UNKNOWN)
    assert retries(reading) == []
    assert len(server.connections) == 1


HARMLESS: dict[str, Sequence[bytes]] = {
    "notices": [notice("a warning in mid-stream"), notice("and another")],
    "a changed parameter": [parameter("TimeZone", "Asia/Shanghai")],
    "keepalives inside the transaction": [keepalive(7), keepalive(0, reply=True)],
    "an empty frame": [copied(b"")],
    "a stray logical message": [data(wire.message("stray", b"x" * 1000, False))],
    "the relation again": [RELATION],
}


@pytest.mark.parametrize("harmless", HARMLESS)
def test_messages_that_may_arrive_at_any_time_change_nothing(stage: Stage, harmless: str) -> None:
    between = HARMLESS[harmless]
    row = data(wire.insert(5, [b"1", b"a"]))
    script = Script((RELATION, *between, *stage.transaction(1, *between, row, *between), *stage.row(2)))
    reading, _ = stage.play(script)
    until_came(reading, b"1", b"2")
    assert (parked(reading), retries(reading)) == ([], [])


def test_a_burst_of_keepalives_is_answered_and_the_stream_continues(stage: Stage) -> None:
    burst = [keepalive(stage.lsn, reply=True)] * 3000
    reading, server = stage.play(Script((RELATION, *burst, *stage.row(1))))
    until_came(reading, b"1")
    (heard,) = server.connections
    wait_for(lambda: len(heard.statuses) >= 3000, "every keepalive was answered")
    assert {status.flushed for status in heard.statuses} <= {0, stage.lsn, stage.lsn + 1000}, "0 is no position"
    assert retries(reading) == []


def test_type_and_origin_messages_apply_to_the_messages_after_them(stage: Stage) -> None:
    relation = data(wire.relation(5, "public.customer", [("id", 23, True), ("mood", 16_390, False)]))
    said = [data(wire.origin("erp")), data(wire.type_name(16_390, "public", "mood")), relation]
    reading, _ = stage.play(Script(stage.transaction(1, *said, data(wire.insert(5, [b"1", b"calm"])))))
    until_came(reading, b"1")
    assert reading.transactions[-1].origin == "erp"
    assert [column.type_name for column in reading.streamed[0].relation.columns] == ["int4", '"public"."mood"']


@pytest.mark.parametrize("size", [1 << 16, 48 << 20])
def test_a_huge_value_arrives_whole(stage: Stage, size: int) -> None:
    huge = b"x" * size
    reading, _ = stage.play(
        Script((RELATION, *stage.transaction(1, data(wire.insert(5, [b"1", huge]))), *stage.row(2)))
    )
    until_came(reading, b"1", b"2")
    assert (reading.streamed[0].new or ())[1] == huge


def test_unchanged_null_and_empty_are_distinguished(stage: Stage) -> None:
    rows = [data(wire.update(5, [b"1", cell])) for cell in (UNCHANGED, None, b"")]
    reading, _ = stage.play(Script((RELATION, *stage.transaction(1, *rows))))
    until_came(reading, b"1", b"1", b"1")
    assert [_second(change) for change in reading.streamed] == [UNCHANGED, None, b""]


def _second(change: RowChange) -> object:
    return (change.new or ())[1]


# ---------------------------------------------------------------- what ends the connection, and is tried again


class Ending(NamedTuple):
    """What the server sends in the middle of a transaction, and words of what is said then."""

    messages: tuple[bytes, ...]
    said: str
    answers_end: bytes = COPY_DONE + COMMAND_COMPLETE + READY
    goes_on_behind: tuple[int, ...] = (1000,)


ENDINGS: dict[str, Ending] = {
    "it shuts down (57P01)": Ending(
        (error("57P01", "terminating connection due to administrator command"), HANG_UP), "administrator command"
    ),
    "it crashed (57P02)": Ending((error("57P02", "crash of another server process"), HANG_UP), "crash of another"),
    "it hangs up": Ending((HANG_UP,), "closed the connection"),
    "an error without hanging up": Ending((error("XX000", "something odd", "ERROR"), READY), "XX000"),
    "the copy ends in peace": Ending((COPY_DONE, COMMAND_COMPLETE, READY), "ended the stream"),
    "the copy ends, then an error": Ending(
        (COPY_DONE,), "odd reason", error("58030", "an odd reason", "ERROR") + READY
    ),
    "the copy ends, then silence": Ending((COPY_DONE,), "", b""),
    "what is no protocol at all": Ending((b"GET / HTTP/1.1\r\n\r\n",), "cannot be reached", goes_on_behind=(0, 1000)),
    "a message of impossible length": Ending(
        (b"d\x7f\xff\xff\xff" + bytes(100), HANG_UP), "cannot be reached", goes_on_behind=(0, 1000)
    ),
    "a frame of which half is missing": Ending(
        (message(b"d", b"w" + bytes(100))[:50], HANG_UP), "closed the connection"
    ),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_end_in_mid_transaction_is_reported_and_the_transaction_arrives_whole_once(
    stage: Stage, ending: str
) -> None:
    how = ENDINGS[ending]
    half = stage.transaction(2, data(wire.insert(5, [b"2", b"half"])))[:-1]
    first = Script((RELATION, *stage.row(1), *half, *how.messages), answers_end=how.answers_end)
    second = Script((RELATION, *stage.row(1), *stage.row(2), *stage.row(3)))
    reading, server = stage.play(first, second)
    until_came(reading, b"1", b"2", b"3")
    (source_changes,) = retries(reading)
    assert how.said in source_changes.sentence
    assert source_changes.problem is None
    assert len(server.connections) == 2
    asked_from = server.connections[1].started.split("LOGICAL ")[1].split()[0]
    high, low = asked_from.split("/")
    behind = (int(high, 16) << 32 | int(low, 16)) - stage.lsn
    assert behind in how.goes_on_behind
    assert counted(reading, DUPLICATES) == (behind == 1000), "row 1 came again where it was known already"
    assert parked(reading) == []


# ---------------------------------------------------------------- what cannot be followed: three attempts, then a person


def frames_that_cannot_be_followed(stage: Stage) -> dict[str, Sequence[bytes]]:
    row = data(wire.insert(5, [b"2", b"a"]))
    begin, commit = stage.transaction(2)
    return {
        "a commit cut short": (begin, row, data(wire.commit(1, 2)[:-1])),
        "a begin cut short": (data(wire.begin(1)[:-1]), row, commit),
        "a relation cut short": (begin, data(wire.relation(5, "public.customer", COLUMNS)[:-1]), row, commit),
        "a begin inside a transaction": (begin, begin),
        "a commit without a begin": (commit,),
        "a commit of another transaction": (begin, row, stage.transaction(3)[1]),
        "a commit at zero": (data(wire.begin(0)), row, data(wire.commit(0, 0))),
        "a commit at a negative position": (begin, row, data(wire.commit(stage.lsn + 1900, (1 << 64) - 5))),
        "a commit that goes back": (*stage.row(4), *stage.row(2)),
        "a keepalive at a negative position": (keepalive((1 << 64) - 1),),
        "a keepalive cut short": (copied(b"k" + bytes(3)),),
        "the start of a streamed transaction": (data(b"S" + struct.pack("!IB", 7, 1)),),
        "a commit of a streamed transaction": (data(b"c" + bytes(29)),),
        "a prepared transaction": (data(b"b" + bytes(28)),),
    }


@pytest.mark.parametrize("what", list(frames_that_cannot_be_followed(Stage("", 0, "", lambda: None))))  # type: ignore[arg-type, return-value]  # only the names are used
def test_an_unreadable_stream_is_retried_three_times_and_then_stops_the_source(stage: Stage, what: str) -> None:
    broken = frames_that_cannot_be_followed(stage)[what]
    reading, server = stage.play(Script((RELATION, *stage.row(1), *broken)))
    reading.take()
    refusal = wait_for(
        lambda: [fact for fact in source_changes(reading) if fact.state == "stopped"], "the source stopped"
    )[0]
    reading.take()
    assert refusal.problem == "stream_unreadable"
    assert "resync" in refusal.hint
    assert b"2" not in came(reading), "what is behind the damage was not read"
    assert came(reading)[0] == b"1"
    connections = len(server.connections)
    assert connections in (3, 4), "the first attempt has moved on, and counts as one of its own"
    assert len(retries(reading)) == connections - 1


def test_every_commit_out_of_lsn_order_is_counted_as_a_gap(stage: Stage) -> None:
    reading, _ = stage.play(Script((RELATION, *stage.row(4), *stage.row(2))), Script((RELATION, *stage.row(5))))
    until_came(reading, b"4", b"5")
    assert counted(reading, GAPS, COMMIT_ORDER) == 1


def counted(reading: Reading, figure: str, label: str = "") -> int:
    return reading.source.status().counts.get((figure, label), 0)


def source_changes(reading: Reading) -> list[SourceChanged]:
    reading.take()
    return [fact for fact in reading.facts if isinstance(fact, SourceChanged)]


def test_damage_that_does_not_recur_stops_nothing(stage: Stage) -> None:
    begin, commit = stage.transaction(2)
    damaged = Script((RELATION, *stage.row(1), begin, commit[:-20] + b"\xff" * 20))
    reading, _ = stage.play(damaged, damaged, Script((RELATION, *stage.row(2))))
    until_came(reading, b"1", b"2")
    assert reading.source.status().problem is None


# ---------------------------------------------------------------- another server than before


def test_a_server_that_was_promoted_behind_our_position_is_followed_on_its_timeline(stage: Stage) -> None:
    fork = stage.lsn + 1500
    first = Script((RELATION, *stage.row(1), HANG_UP))
    history = f"1\t{fork >> 32:X}/{fork & 0xFFFFFFFF:X}\tfailover\n".encode()
    reading, _ = stage.play(first, Script((RELATION, *stage.row(2)), timeline=2, history=history))
    until_came(reading, b"1", b"2")
    assert [each.timeline for each in reading.transactions if each.changes] == [1, 2]


ELSEWHERE: dict[str, tuple[dict[str, object], str]] = {
    "another system": ({"system": "7999999999999999999"}, "other_server"),
    "a fork before our position": ({"timeline": 2, "history": b"1\t0/10\tfailover\n"}, "failed_over"),
    "less WAL than we have read": ({"wal_lsn": 5000}, "server_restored"),
}


@pytest.mark.parametrize("elsewhere", ELSEWHERE)
def test_a_server_without_our_position_is_refused(stage: Stage, elsewhere: str) -> None:
    changed, problem = ELSEWHERE[elsewhere]
    first = Script((RELATION, *stage.row(1), HANG_UP))
    reading, server = stage.play(first, Script(stage.row(2), **changed))  # type: ignore[arg-type]  # by field name
    wait_for(lambda: [fact for fact in source_changes(reading) if fact.state == "stopped"], "the source stopped")
    assert reading.refusal().problem == problem
    assert came(reading) == [b"1"]
    assert server.connections[1].started == "", "nothing was started"


# ---------------------------------------------------------------- what every SQLSTATE comes to


class Meaning(NamedTuple):
    """SQLSTATE and words of a server, and what they come to: None is tried again."""

    sqlstate: str
    words: str
    problem: str | None


MEANINGS = (
    Meaning("08006", "connection failure", None),
    Meaning("08P01", "a protocol violation", None),
    Meaning("08P01", "unsupported startup parameter: options", "configuration"),
    Meaning("0A000", "client sent proto_version=4 but the server only supports 1", "configuration"),
    Meaning("22023", "invalid proto_version", "configuration"),
    Meaning("22008", "date out of range: 13800-13-80", "value_unreadable"),
    Meaning("22P05", "character with byte sequence 0x81 has no equivalent", "value_unreadable"),
    Meaning("23514", "value 138 violates check constraint", "value_unreadable"),
    Meaning("P0001", "raised with 138", None),
    Meaning("25006", "cannot execute in a read-only transaction", "configuration"),
    Meaning("28000", "no pg_hba.conf entry", "authentication"),
    Meaning("28P01", "password authentication failed", "authentication"),
    Meaning("3D000", "database does not exist", "database_missing"),
    Meaning("40001", "could not serialize access", None),
    Meaning("42501", "permission denied", "not_permitted"),
    Meaning("42601", "syntax error", "configuration"),
    Meaning("42602", "invalid name", "configuration"),
    Meaning("42704", 'replication slot "s" does not exist', "slot_missing"),
    Meaning("42704", 'publication "p" does not exist', "publication_missing"),
    Meaning("42883", "function does not exist", "configuration"),
    Meaning("53000", "insufficient resources", None),
    Meaning("53100", "disk full", None),
    Meaning("53200", "out of memory", None),
    Meaning("53300", "too many connections", None),
    Meaning("53400", "all replication slots are in use", "configuration"),
    Meaning("55000", 'can no longer access replication slot "s"', "slot_lost"),
    Meaning("55000", "exceeded the maximum reserved size", "slot_lost"),
    Meaning("55000", "logical decoding requires wal_level >= logical", "wal_level"),
    Meaning("55000", "slot was not created in this database", "configuration"),
    Meaning("55006", "replication slot is active for PID 7", None),
    Meaning("55P03", "lock not available", None),
    Meaning("57014", "canceling statement due to user request", None),
    Meaning("57P01", "terminating connection due to administrator command", None),
    Meaning("57P02", "crash of another server process", None),
    Meaning("57P03", "the database system is starting up", None),
    Meaning("57P04", "database was dropped", "database_missing"),
    Meaning("57P05", "idle session timeout", None),
    Meaning("58030", "could not read block", None),
    Meaning("58P01", "requested WAL segment has already been removed", "slot_lost"),
    Meaning("58P01", 'could not access file "pgoutput"', "configuration"),
    Meaning("XX000", "an internal error", None),
    Meaning("XX001", "invalid page in block", None),
)
PLACES = ("start", "identify", "in the stream")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("meaning", MEANINGS, ids=lambda meaning: f"{meaning.sqlstate}-{meaning.problem}")
def test_a_sqlstate_is_retried_or_stops_the_source_with_a_hint(stage: Stage, meaning: Meaning, place: str) -> None:
    said = error(meaning.sqlstate, meaning.words, "ERROR")
    reading, server = stage.play(
        Script(start=said) if place == "start" else Script(identify=said) if place == "identify" else Script((said,))
    )
    (first, *_) = wait_for(
        lambda: [fact for fact in source_changes(reading) if fact.state in ("stopped", "retrying")],
        "a failure was reported",
    )
    assert (first.state, first.problem) == ("stopped" if meaning.problem else "retrying", meaning.problem)
    quotes_values = meaning.sqlstate[:2] in ("22", "23", "P0", "XX")
    assert (meaning.sqlstate if quotes_values else meaning.words) in first.sentence
    assert (meaning.words in first.sentence) != quotes_values
    assert first.hint
    if meaning.problem is None:
        wait_for(lambda: len(server.connections) > 1, "it was tried again")
    else:
        assert len(server.connections) == 1


GREETINGS = (
    Meaning("28P01", 'password authentication failed for user "u"', "authentication"),
    Meaning("28000", 'no pg_hba.conf entry for replication connection from host "h"', "authentication"),
    Meaning("28000", 'role "u" does not exist', "authentication"),
    Meaning("28000", "connection requires a valid client certificate", "authentication"),
    Meaning("3D000", 'database "d" does not exist', "database_missing"),
    Meaning("42501", "permission denied to start WAL sender", "not_permitted"),
    Meaning("08P01", "unsupported startup parameter: replication", "configuration"),
    Meaning("08P01", "replication connections are not supported", "configuration"),
    Meaning("53300", "sorry, too many clients already", None),
    Meaning("53300", "remaining connection slots are reserved", None),
    Meaning("53300", "no more connections allowed (max_client_conn)", None),
    Meaning("53300", 'number of requested standby connections exceeds "max_wal_senders" (currently 1)', None),
    Meaning("57P03", "the database system is starting up", None),
    Meaning("57P03", "the database system is shutting down", None),
    Meaning("57P03", "the database system is in recovery mode", None),
    Meaning("57P03", "the database system is not yet accepting connections", None),
)


@pytest.mark.parametrize("meaning", GREETINGS, ids=lambda meaning: meaning.words[:30])
def test_a_refused_login_is_classified_by_its_message_since_libpq_gives_no_sqlstate(
    stage: Stage, meaning: Meaning
) -> None:
    reading, server = stage.play(Script(greeting=error(meaning.sqlstate, meaning.words)))
    (first, *_) = wait_for(
        lambda: [fact for fact in source_changes(reading) if fact.state in ("stopped", "retrying")],
        "a failure was reported",
    )
    assert (first.state, first.problem) == ("stopped" if meaning.problem else "retrying", meaning.problem)
    assert meaning.words in first.sentence
    if meaning.problem is None:
        wait_for(lambda: len(server.connections) > 1, "it was tried again")


def test_a_server_that_always_fails_is_retried_a_few_times_a_second_at_most(stage: Stage) -> None:
    reading, server = stage.play(Script((HANG_UP,)))
    wait_for(lambda: len(server.connections) >= 4, "it was tried four times")
    times = len(server.connections)
    assert times <= 5, "pauses grow although each stream began"
    assert reading.source.status().state in ("retrying", "streaming", "connecting")


def test_plain_connections_reach_the_real_server(stage: Stage, postgres_server: DemoServer) -> None:
    """The script speaks for the stream alone: without this, the other tests would prove little."""
    with Proxy(socket_of(postgres_server)) as proxy:
        assert run(proxy.dsn(stage.dsn), "SELECT 1") == [(1,)]
    reading, server = stage.play(Script((RELATION, *stage.row(1))))
    until_came(reading, b"1")
    assert stage.slot in server.connections[0].started
    wait_for(lambda: reading.source.status().wal_status == "reserved", "the real slot's health is known")
