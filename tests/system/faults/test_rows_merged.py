"""Rows whose keys or partitions change, through the whole sidecar: no value is lost and no conflict is raised."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import psycopg
import pytest

from tests.system.faults.sidecars import configured, held, sidecar, until_present, until_streaming
from tests.system.postgres.reading import run

LONG = "(SELECT string_agg(md5(g::text), '') FROM generate_series(1, 400) g)"
TABLES = {
    "by its primary key": (
        "CREATE TABLE customer (id int PRIMARY KEY, name text, points int)",
        "CREATE PUBLICATION cdc_merge FOR TABLE customer",
    ),
    "by an index": (
        "CREATE TABLE customer (id int NOT NULL UNIQUE, name text, points int)",
        "ALTER TABLE customer REPLICA IDENTITY USING INDEX customer_id_key",
        "CREATE PUBLICATION cdc_merge FOR TABLE customer",
    ),
    "in partitions": (
        "CREATE TABLE customer (id int, name text, points int, PRIMARY KEY (id, points)) PARTITION BY RANGE (points)",
        "CREATE TABLE few PARTITION OF customer FOR VALUES FROM (0) TO (100)",
        "CREATE TABLE many PARTITION OF customer FOR VALUES FROM (100) TO (1000)",
        "CREATE PUBLICATION cdc_merge FOR TABLE customer WITH (publish_via_partition_root = true)",
    ),
}
EDITS = (
    f"INSERT INTO customer VALUES (1, {LONG}, 1), (2, {LONG}, 2), (3, 'short', 3)",
    "UPDATE customer SET points = points + 1",
    "UPDATE customer SET id = id + 10",
    "UPDATE customer SET points = points + 150 WHERE id = 11",  # in another partition, the long name unchanged
    "UPDATE customer SET id = 50, points = 7 WHERE id = 12",
    "DELETE FROM customer WHERE id = 13",
)


@pytest.mark.parametrize("identified", TABLES)
def test_a_row_keeps_its_unsent_toast_values_when_its_key_or_its_partition_changes(
    each_database: str, tmp_path: Path, identified: str
) -> None:
    dsns = {"crm": each_database}
    run(each_database, *TABLES[identified])
    config = configured(tmp_path / "one.yaml", dsns)
    document = json.loads(config.read_text())
    document["entities"]["customer"]["fields"]["points"]["merge"] = "mv"
    config.write_text(json.dumps(document))
    with sidecar(config) as running:
        until_streaming(running)
        run(each_database, *EDITS)
        until_present(running, dsns)
        assert held(running, "crm") == _rows(each_database)
        assert running.queries.conflicts({"status": "open"}, None, 10).items == []


def _rows(dsn: str) -> dict[str, Mapping[str, object]]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT id::text, name, points FROM customer").fetchall()
    assert max(len(name) for _, name, _ in rows) > 10_000
    return {key: {"name": name, "points": points} for key, name, points in rows}
