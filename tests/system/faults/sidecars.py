"""The whole sidecar for the tests of this folder: its configuration, and what it says that a source holds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from cdc_merge.app.sidecar import Sidecar
from cdc_merge.config.load import load
from cdc_merge.model import Value
from tests.system.postgres.reading import wait_for, wal_lsn

SETUP = (
    "CREATE TABLE customer (id int PRIMARY KEY, name text, points int)",
    "ALTER TABLE customer REPLICA IDENTITY FULL",
    "CREATE PUBLICATION cdc_merge FOR TABLE customer",
)
LIMIT_S = 60.0


def configured(path: Path, dsns: Mapping[str, str], **source: Any) -> Path:
    """A configuration file over these sources, all of them with the same table; `source` is added to each."""
    mapped = {"table": "public.customer", "key": "id", "fields": {"name": "name", "points": "points"}}
    document = {
        "store": f"sqlite://{path.with_suffix('.db')}",
        "http": {"listen": "127.0.0.1:0"},
        "settle": "200ms",
        "sources": {name: {"type": "postgres", "dsn": dsn} | source for name, dsn in dsns.items()},
        "entities": {
            "customer": {
                "from": dict.fromkeys(dsns, mapped),
                "fields": {"name": {"merge": "mv"}, "points": {"merge": "counter"}},
            }
        },
    }
    path.write_text(json.dumps(document))
    return path


@contextmanager
def sidecar(config: Path) -> Iterator[Sidecar]:
    """Started; stopped at the end."""
    running = Sidecar(load(config, {"HOME": str(config.parent)}))
    running.start()
    try:
        yield running
    finally:
        running.stop()


def until_streaming(running: Sidecar) -> None:
    wait_for(lambda: all(each.state == "streaming" for each in running.statuses()), "every source streams", LIMIT_S)


def until_present(running: Sidecar, dsns: Mapping[str, str]) -> None:
    """All that the sources have committed by now is merged and on disk, and nothing is settling."""
    lsns = {name: wal_lsn(dsn) for name, dsn in dsns.items()}
    assert running.settled(lsns, LIMIT_S), running.statuses()


def held(running: Sidecar, source: str) -> dict[str, Mapping[str, Value]]:
    """What the sidecar says that the source's table holds."""
    found: dict[str, Mapping[str, Value]] = {}
    cursor: str | None = None
    while True:
        page = running.queries.records("customer", cursor, 500)
        views = ((record.key, record.sources.get(source)) for record in page.items)
        found |= {key: view.values for key, view in views if view is not None and view.presence == "present"}
        if page.next_cursor is None:
            return found
        cursor = page.next_cursor


def in_table(dsn: str) -> dict[str, Mapping[str, Value]]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT id::text, name, points FROM customer").fetchall()
    return {key: {"name": name, "points": points} for key, name, points in rows}
