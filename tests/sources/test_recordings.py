"""Recordings of real servers decode alike on every version, and a damaged file is refused."""

from __future__ import annotations

import io
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from cdc_merge.errors import ProtocolError
from cdc_merge.model import UNCHANGED, Delivery, Idle, Message, Parked, Position, Transaction
from cdc_merge.model.ports import Source
from tests.recordings.payloads import RECORDINGS
from tests.recordings.recording import Header, Recorder, RecordingSource, read_recording

ORIGIN_US = 981_173_106_000_000  # 2001-02-03 04:05:06 UTC


def replay(path: Path, position: Position | None = None) -> list[Transaction]:
    parked: list[Parked] = []
    source: Source = RecordingSource("crm", path, parked.append)
    source.start(position)
    deliveries = source.take(1_000_000)
    source.stop()
    assert source.status().problem is None
    assert parked == []
    return [delivery for delivery in deliveries if isinstance(delivery, Transaction)]


def story(name: str, version: str) -> list[Transaction]:
    return replay(next(path for path in RECORDINGS if path.stem == f"{name}-{version}"))


def shown(transactions: list[Transaction]) -> list[Any]:
    """What a story says without what differs between servers: times and positions."""
    return [
        (
            transaction.origin,
            transaction.messages,
            [
                (change.operation, change.relation.table, change.old, change.new, change.ordinal)
                for change in transaction.changes
            ],
        )
        for transaction in transactions
    ]


def test_a_story_is_the_same_on_every_server_version() -> None:
    by_story = defaultdict(list)
    for path in RECORDINGS:
        by_story[path.stem.partition("-")[0]].append(shown(replay(path)))
    assert set(by_story) == {"rows", "toast", "keys", "rest", "forms", "prepared", "leaves", "root"}
    for versions in by_story.values():
        assert len(versions) == 3
        assert versions[0] == versions[1] == versions[2]


def test_rows_come_as_they_were_written() -> None:
    inserted, updated, three, deleted, deleted_full, _end = (each.changes for each in story("rows", "18"))
    assert [change.new for change in inserted] == [
        (b"1", b"Wang", None, b"calm", b"138", b"12.50", b'{a,"b c",NULL}'),
        (b"2", b"", b"x", None, None, b"NaN", b"{}"),
    ]
    assert updated[0].old is None
    assert updated[0].new is not None
    assert updated[0].new[1] == "王".encode()
    assert [change.ordinal for change in three] == [0, 1, 2]
    assert three[1].old == (b"1", b"a", b"n")
    assert three[1].old_is_full
    assert deleted[0].old == (b"2", None, None, None, None, None, None)
    assert not deleted[0].old_is_full
    assert deleted_full[0].old == (b"1", b"c", b"n")


def test_an_enum_and_a_domain_have_their_names_of_the_catalog() -> None:
    columns = story("rows", "18")[0].changes[0].relation.columns
    assert [column.type_name for column in columns] == [
        "int4",
        "text",
        "text",
        '"public"."mood"',
        "text",
        "numeric",
        "_text",
    ]
    assert [column.name for column in columns if column.is_identity] == ["id"]


def test_an_unchanged_toast_value_is_absent_by_key_and_filled_by_full_row() -> None:
    _inserted, by_key, by_row, key_moved, row_moved, _end = (each.changes[:1] for each in story("toast", "18"))
    assert by_key[0].new is not None
    assert by_key[0].new[2] is UNCHANGED
    assert by_row[0].new is not None
    assert len(by_row[0].new[2] or b"") == 3840  # type: ignore[arg-type]  # UNCHANGED has no length: the test would fail
    assert key_moved[0].old is not None
    assert key_moved[0].new is not None
    assert (key_moved[0].old[0], key_moved[0].new[0], key_moved[0].new[2]) == (b"1", b"2", UNCHANGED)
    assert row_moved[0].new is not None
    assert len(row_moved[0].new[2] or b"") == 3840  # type: ignore[arg-type]  # as above


def test_a_swap_of_keys_shows_the_old_key_of_each_row() -> None:
    swap = story("keys", "18")[1].changes
    assert [((change.old or ())[0], (change.new or ())[0]) for change in swap] == [
        (b"1", b"3"),
        (b"2", b"1"),
        (b"3", b"2"),
    ]


def test_an_origin_keeps_its_foreign_time_between_ours() -> None:
    times = [(each.origin, each.commit_us) for each in story("rest", "18")]
    assert ("erp", ORIGIN_US) in times
    assert all(us > ORIGIN_US for origin, us in times if origin is None)


def test_truncate_message_and_a_changed_table_come_in_order() -> None:
    _rows, truncated, actor, origin, altered, _end = story("rest", "18")
    assert [change.relation.table for change in truncated.changes] == ["public.by_key", "public.by_row"]
    assert actor.messages == (Message("cdc_merge.actor", b"wang", transactional=True),)
    assert [column.name for column in origin.changes[0].relation.columns][1] == "name"
    names = [column.name for column in altered.changes[0].relation.columns]
    assert "name" not in names
    assert names[-1] == "added"


def stream_of(story_name: str) -> list[list[tuple[str, str]]]:
    changes = [each.changes for each in story(story_name, "18")]
    return [
        [(change.operation, change.relation.table.removeprefix("public.")) for change in some]
        for some in changes
        if some
    ]


def test_an_identity_by_index_shows_its_own_columns_as_the_old_row() -> None:
    by_index = [c for each in story("forms", "18") for c in each.changes if c.relation.name == "by_index"]
    assert [change.old for change in by_index] == [None, None, (None, b"a", None), (None, b"b", None)]
    assert {change.relation.identity for change in by_index} == {"i"}
    assert [column.name for column in by_index[0].relation.columns if column.is_identity] == ["code"]


def test_a_generated_column_is_not_sent_and_a_table_without_identity_has_inserts() -> None:
    changes = [change for each in story("forms", "18") for change in each.changes]
    made = [change.new for change in changes if change.relation.name == "made"]
    assert made == [(b"1", b"10"), (b"1", b"11")]
    (unidentified,) = [change for change in changes if change.relation.name == "by_nothing"]
    assert (unidentified.relation.identity, unidentified.new) == ("n", (b"1",))
    assert ("truncate", "child") in [pair for some in stream_of("forms") for pair in some]
    assert not [change for change in changes if b"gone" in (change.new or ())]


def test_a_prepared_transaction_is_delivered_at_its_commit_and_one_rolled_back_never() -> None:
    names = [(change.new or ())[1] for each in story("prepared", "18") for change in each.changes]
    assert names == [b"before", b"later"]


def test_partitions_are_delivered_by_leaf_or_by_root() -> None:
    assert stream_of("leaves") == [
        [("insert", "parts_low")],
        [("delete", "parts_low"), ("insert", "parts_high")],
        [("truncate", "parts_high")],
        [("truncate", "parts_low"), ("truncate", "parts_high")],
    ]
    # A row that moves to another partition is a delete and an insert, also where the root's name is shown.
    assert stream_of("root") == [
        [("insert", "parts")],
        [("delete", "parts"), ("insert", "parts")],
        [("truncate", "parts")],
    ]


def test_a_position_skips_what_it_covers_and_nothing_more() -> None:
    path = RECORDINGS[0]
    whole = replay(path)
    rest = replay(path, Position(whole[0].system, 1, whole[1].end_lsn, "done", "s"))
    assert rest == whole[2:]


def test_taking_in_small_portions_gives_the_same_as_taking_all() -> None:
    source = RecordingSource("crm", RECORDINGS[0], lambda parked: None)
    source.start(None)
    taken: list[Delivery] = []
    while chunk := source.take(1):
        assert len(chunk) == 1
        taken += chunk
    source.start(None)
    assert taken == list(source.take(1_000_000))
    source.stop()


def test_a_recording_cut_anywhere_is_a_problem_of_the_source_not_a_crash(tmp_path: Path) -> None:
    content = RECORDINGS[0].read_bytes()
    whole = replay(RECORDINGS[0])
    for end in range(0, len(content), 97):
        path = tmp_path / "cut.stream"
        path.write_bytes(content[:end])
        source = RecordingSource("crm", path, lambda parked: None)
        source.start(None)
        found = [delivery for delivery in source.take(1_000_000) if isinstance(delivery, Transaction)]
        assert found == whole[: len(found)]
        source.stop()


def test_a_file_that_is_no_recording_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match="does not begin as a recording does"):
        read_recording(io.BytesIO(b"\x7fELF"))
    source = RecordingSource("crm", tmp_path / "absent.stream", lambda parked: None)
    source.start(None)
    assert source.take(10) == []
    assert source.status().problem is not None
    assert not source.status().up


def test_what_a_recorder_writes_is_what_is_read() -> None:
    file = io.BytesIO()
    recorder = Recorder(file, Header("77", 3, "a story", "18"))
    recorder.write(5, b"w" + bytes(30))
    recorder.write(6, memoryview(b"k"))
    file.seek(0)
    header, frames = read_recording(file)
    assert header == Header("77", 3, "a story", "18")
    assert [(frame.received_us, frame.payload) for frame in frames] == [(5, b"w" + bytes(30)), (6, b"k")]


def test_a_keepalive_between_transactions_is_an_idle_mark() -> None:
    source = RecordingSource("crm", RECORDINGS[0], lambda parked: None)
    source.start(None)
    deliveries = source.take(1_000_000)
    source.stop()
    last = deliveries[-1]
    assert isinstance(last, Idle)
    assert last.lsn >= max(each.end_lsn for each in deliveries if isinstance(each, Transaction))
