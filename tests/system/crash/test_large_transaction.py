"""A transaction of very many rows is merged in bounded memory, and `kill -9` in the middle of it loses and doubles nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from bench.large import INSERT, Process, configured, run, running
from cdc_merge.demo.servers import DemoServer
from cdc_merge.model import lsn_from_text
from cdc_merge.stores.sqlite.store import SqliteStore

ROWS = 60_000
"""In memory at once, so many records would take 600 MB, and their rows another 100."""

LIMIT_S = 240.0
NEARLY = 1 << 20  # bytes of WAL: an idle mark may be a little behind; both transactions write many times as much
MERGING_MB = 700  # the cache of records is most of it; a million rows take no more
READER_MB = 130

# Every row is touched twice, a tenth moves to another key, and some of the keys left are taken again.
WORK = f"""
do $$ begin
  update item set stock = stock + 1;
  update item set remark = 'moved', item_no = item_no + 1000000 where item_no % 10 = 0;
  insert into item select n, 'again', null, 1, 1, 'A1', 's', 1, '2026-01-02', 'new' from generate_series(10, {ROWS}, 100) n;
  delete from item where item_no % 10 = 3;
end $$
"""


RELOAD = f"""
do $$ begin
  truncate item;
  insert into item select n, 'again', null, 1, n % 7, 'A1', 's', 1, '2026-01-02', 'new' from generate_series(1, {ROWS} / 4) n;
end $$
"""


@pytest.fixture
def site(new_server: Callable[..., DemoServer], tmp_path: Path) -> tuple[DemoServer, Path, int]:
    server = new_server(settings={"max_wal_size": "4GB"})
    config, port = configured(tmp_path, server)
    return server, config, port


def test_a_large_transaction_is_merged_in_bounded_memory_whichever_process_is_killed(
    site: tuple[DemoServer, Path, int],
) -> None:
    server, config, port = site
    with running(config, port) as sidecar:
        sidecar.wait(lambda: sidecar.durable_lsn() > 0, LIMIT_S)
        end = run(server, INSERT.format(rows=ROWS))
        sidecar.wait(lambda: sidecar.durable_lsn() >= end, LIMIT_S)
        end = run(server, WORK)
        sidecar.wait(lambda: lsn_from_text(sidecar.source().get("received_lsn", "0/0")) > end - NEARLY, LIMIT_S)
        time.sleep(1.0)  # no synchronisation: merging it takes many times as long
        assert sidecar.durable_lsn() < end - NEARLY
        sidecar.process.kill()
        sidecar.process.wait()
    with closing(SqliteStore(config.with_name("state.db"))) as store:
        assert store.figures().history_changes == ROWS, "nothing of the second one was kept"
    with running(config, port) as sidecar:
        sidecar.wait(lambda: sidecar.durable_lsn() >= end, LIMIT_S)
        peak = sidecar.peak_mb()
        held = dict(_held(sidecar))
        on_disk = sorted(os.listdir(config.parent))
    assert peak["merging"] < MERGING_MB, peak
    assert peak["reader"] < READER_MB, peak
    assert held == _in_the_table(server)
    with closing(SqliteStore(config.with_name("state.db"))) as store:
        assert store.figures().history_changes == ROWS + ROWS + ROWS // 10, "one change a record and transaction"
    assert [name for name in on_disk if not name.startswith(("state.db", "cdc-merge."))] == []


def test_a_table_emptied_and_filled_again_is_merged_in_bounded_memory(
    site: tuple[DemoServer, Path, int],
) -> None:
    server, config, port = site
    with running(config, port) as sidecar:
        sidecar.wait(lambda: sidecar.durable_lsn() > 0, LIMIT_S)
        for statement in (INSERT.format(rows=ROWS // 2), RELOAD, "truncate item"):
            end = run(server, statement)
            sidecar.wait(lambda end=end: sidecar.durable_lsn() >= end, LIMIT_S)  # type: ignore[misc] # a fact
            assert dict(_held(sidecar)) == _in_the_table(server)
        assert sidecar.peak_mb()["merging"] < MERGING_MB


def _held(sidecar: Process) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records that did not end, with what three fields of them mean."""
    cursor = ""
    while True:
        page = sidecar.ask(f"/api/v1/records/item?limit=1000{cursor}")
        for record in page["items"]:
            if not record["deleted"]:
                yield record["key"], {field: record["merged"][field] for field in ("name", "stock", "remark")}
        if page["next_cursor"] is None:
            return
        cursor = f"&cursor={quote(page['next_cursor'])}"


def _in_the_table(server: DemoServer) -> dict[str, dict[str, Any]]:
    with psycopg.connect(server.dsn()) as connection:
        rows = connection.execute("select item_no::text, name, stock, remark from item").fetchall()
    return {key: {"name": name, "stock": stock, "remark": remark} for key, name, stock, remark in rows}
