"""What only a store on disk can do wrong: other files, other versions, full disks, killed processes, its URL."""

from __future__ import annotations

import os
import random
import re
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cdc_merge.errors import StoreUnavailable
from cdc_merge.model import Change, RecordKey
from cdc_merge.sql_files import named_statements
from cdc_merge.stores.sqlite.migrations import migrations
from cdc_merge.stores.sqlite.store import SqliteStore
from tests.contracts.batches import SOURCE, change, write


def stored(store: SqliteStore) -> int:
    """The changes that can really be read; all three ways of counting must agree."""
    found = sum(len(store.history(RecordKey("customer", key))) for key in store.records("customer", None, 1000))
    position = store.positions().get(SOURCE)
    assert found == store.figures().history_changes == (position[0].lsn if position else 0)
    return found


def refused(path: Path, words: str) -> StoreUnavailable:
    with pytest.raises(StoreUnavailable, match=words) as refusal:
        SqliteStore(path)
    assert refusal.value.hint
    assert str(path) in str(refusal.value)
    return refusal.value


# ---------------------------------------------------------------- files that cannot be used


def test_a_missing_directory_is_named_with_the_next_step(tmp_path: Path) -> None:
    assert "directory" in refused(tmp_path / "missing" / "state.db", "cannot be opened").hint


def test_a_directory_without_write_permission_is_refused() -> None:
    # Not even root may create a file in /proc, so this holds for whoever runs the tests.
    refused(Path("/proc/state.db"), "cannot be opened|may not")


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_text("minutes of a meeting\n" * 100)
    refused(path, "not an SQLite database")
    assert path.read_text() == "minutes of a meeting\n" * 100


def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE invoice (id INTEGER)")
    other.close()
    before = path.read_bytes()
    refused(path, "another program")
    assert path.read_bytes() == before


def test_a_damaged_file_is_refused_with_a_hint(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = SqliteStore(path)
    write(store, 0, 5000, bytes_long=100)
    store.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xde\xad" * (path.stat().st_size // 2 - 4096))
    with pytest.raises(StoreUnavailable, match="damaged") as refusal:
        stored(SqliteStore(path))
    assert "backup" in refusal.value.hint


def test_a_newer_layout_is_refused_with_both_numbers_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    SqliteStore(path).close()
    other = sqlite3.connect(path)
    other.execute("UPDATE schema_version SET version = 4711")
    other.commit()
    other.close()
    before = path.read_bytes()
    assert "newer" in refused(path, rf"layout 4711.* {len(migrations('sqlite'))}$").hint
    assert path.read_bytes() == before


# ---------------------------------------------------------------- layout


def test_opening_twice_migrates_once(tmp_path: Path) -> None:
    first = SqliteStore(tmp_path / "state.db")
    second = SqliteStore(tmp_path / "state.db")
    write(first, 0, 3)
    assert stored(second) == 3
    first.close()
    second.close()


def test_a_new_file_is_not_laid_out_while_another_worker_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    holder = SqliteStore(path)
    holder.claim("the first")
    path.unlink()
    refused_by_holder = pytest.raises(StoreUnavailable, match="the first")
    with refused_by_holder:
        SqliteStore(path)
    holder.close()


def test_every_commit_waits_for_the_disk(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    assert store._writer.execute("PRAGMA synchronous").fetchone() == (2,)
    assert store._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    store.close()


def test_every_statement_has_a_name_of_its_own_and_is_understood_by_sqlite(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    statements = named_statements("cdc_merge.stores.sqlite", "sqlite")
    text = (Path(sys.modules["cdc_merge.stores.sqlite"].__path__[0]) / "sql" / "sqlite.sql").read_text()
    names = re.findall(r"^-- name: (.*)$", text, re.MULTILINE)
    assert names == list(statements)
    assert len(re.findall(r"^-- name: .*\n-- \S", text, re.MULTILINE)) == len(names)
    for statement in statements.values():
        named = dict.fromkeys(re.findall(r":(\w+)", statement))
        store._writer.execute(f"EXPLAIN {statement}", named or (None,) * statement.count("?"))
    store.close()


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        ("conflicts_of_record", "conflict_record"),
        ("conflicts_by_status", "conflict_status"),
        ("unfinished_of_record", "conflict_unfinished"),
        ("unfinished", "USING INDEX conflict_unfinished"),
        ("open_conflicts", "USING INDEX conflict_open"),
    ],
)
def test_lists_of_conflicts_use_their_index(tmp_path: Path, statement: str, index: str) -> None:
    store = SqliteStore(tmp_path / "state.db")
    sql = named_statements("cdc_merge.stores.sqlite", "sqlite")[statement]
    named = dict.fromkeys(re.findall(r":(\w+)", sql))
    plan = store._writer.execute(f"EXPLAIN QUERY PLAN {sql}", named or (None,) * sql.count("?")).fetchall()
    assert index in " ".join(row[3] for row in plan)
    store.close()


# ---------------------------------------------------------------- claims between processes

HOLD = """
import sys
from pathlib import Path
from cdc_merge.stores.sqlite.store import SqliteStore
store = SqliteStore(Path(sys.argv[1]))
store.claim("the other process")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def process(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=Path(__file__).parents[2]) as running:
        try:
            yield running
        finally:
            running.kill()


def test_a_claim_names_the_file_and_the_process_that_holds_it_and_dies_with_it(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with process(HOLD, path) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        store = SqliteStore(path)
        with pytest.raises(StoreUnavailable) as refusal:
            store.claim("the test")
        assert f"process {other.pid} (the other process)" in str(refusal.value)
        assert f"{path}.lock" in str(refusal.value)
        assert "Stop that process" in refusal.value.hint
        os.kill(other.pid, signal.SIGKILL)
        other.wait(10)
        store.claim("the test")
        store.close()


# ---------------------------------------------------------------- crashes

WRITE = """
import sys
from pathlib import Path
from cdc_merge.stores.sqlite.store import SqliteStore
from tests.contracts.batches import SOURCE, write
store = SqliteStore(Path(sys.argv[1]))
store.claim("a writer that will be killed")
positions = store.positions()
first = positions[SOURCE][0].lsn if positions else 0
while True:
    count = first % 400 + 1
    write(store, first, count, bytes_long=50)
    first += count
    print(first, flush=True)
"""


def test_a_killed_writer_leaves_whole_batches_and_all_that_it_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    moments = random.Random(4711)
    total = 0
    for _ in range(8):
        with process(WRITE, path) as writer:
            assert writer.stdout is not None
            acknowledged = [int(writer.stdout.readline()) for _ in range(moments.randint(1, 25))][-1]
            os.kill(writer.pid, signal.SIGKILL)
            acknowledged = max([acknowledged, *map(int, re.findall(r"(\d+)\n", writer.stdout.read()))])
        store = SqliteStore(path)
        store.claim("the next owner")
        assert stored(store) >= acknowledged > total
        total = stored(store)
        store.close()


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_a_disk_that_takes_no_more_keeps_the_last_batch_and_nothing_of_the_next(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    write(store, 0, 10)
    with files_no_larger_than(1_000_000), pytest.raises(StoreUnavailable) as refusal:
        write(store, 10, 3000, bytes_long=1000)
    assert refusal.value.hint
    assert stored(store) == 10
    write(store, 10, 3000, bytes_long=1000)
    assert stored(store) == 3010
    store.close()


def test_a_full_disk_says_so(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    write(store, 0, 10)
    store._writer.execute("PRAGMA max_page_count = 40")  # SQLite's own way to be full
    with pytest.raises(StoreUnavailable, match="no space left") as refusal:
        write(store, 10, 3000, bytes_long=1000)
    assert "Free disk space" in refusal.value.hint
    assert stored(store) == 10
    store.close()


def test_an_append_that_failed_half_way_cannot_be_committed(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    unreadable = change(1)._replace(fields={"name": (None, object())})  # type: ignore[dict-item]  # wrong on purpose
    with pytest.raises(AssertionError, match="half-way"), store.transaction() as batch:
        swallowing(batch.append, [change(0), unreadable])
    assert stored(store) == 0
    write(store, 0, 3)
    assert stored(store) == 3
    store.close()


def swallowing(append: object, changes: list[Change]) -> None:
    try:
        append(changes)  # type: ignore[operator]  # a bound method
    except TypeError:
        return
    raise AssertionError("the append did not fail")
