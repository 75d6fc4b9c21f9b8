"""Record the golden transcripts of this folder from real servers: `python -m tests.recordings.record`.

One file per story and server version; what a story does is its SQL below. Run it when a story is added or a new major
version comes out, and read the diff of the decoded messages (tests/sources/test_recordings.py prints them on failure).
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psycopg

from cdc_merge.demo.binaries import installed
from cdc_merge.demo.servers import DemoServer, new_directory, start_server
from cdc_merge.sources.postgres.protocol.copy_data import XLOG_DATA, XLOG_DATA_HEADER_BYTES
from cdc_merge.sources.postgres.protocol.pgoutput import LogicalMessage, decode
from cdc_merge.sources.postgres.replication_connection import WalSender
from tests.recordings.recording import Header, Recorder

VERSIONS = ("18", "17", "15")
FOLDER = Path(__file__).parent
END = "SELECT pg_logical_emit_message(true, 'recording.end', '')"
LONG_TEXT = "(SELECT string_agg(md5(g::text), '') FROM generate_series(1, 120) g)"  # 3,840 characters

SETUP = """
CREATE TYPE mood AS ENUM ('calm', 'angry');
CREATE DOMAIN phone AS text;
CREATE TABLE by_key
    (id int PRIMARY KEY, name text, note text, mood mood, phone phone, amount numeric(12,2), tags text[]);
CREATE TABLE by_row (id int PRIMARY KEY, name text, note text);
ALTER TABLE by_key ALTER note SET STORAGE EXTERNAL;
ALTER TABLE by_row ALTER note SET STORAGE EXTERNAL;
ALTER TABLE by_row REPLICA IDENTITY FULL;
CREATE PUBLICATION story FOR ALL TABLES;
"""

PARTITIONED = (
    "CREATE TABLE parts (id int PRIMARY KEY, name text) PARTITION BY RANGE (id)",
    "CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (100)",
    "CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM (100) TO (200)",
)
MOVED = ("INSERT INTO parts VALUES (1, 'low')", "UPDATE parts SET id = 150", "TRUNCATE parts_high", "TRUNCATE parts")

STORIES: dict[str, Sequence[str]] = {
    "rows": (
        "INSERT INTO by_key VALUES (1, 'Wang', NULL, 'calm', '138', 12.50, '{a,\"b c\",NULL}'), "
        "(2, '', 'x', NULL, NULL, 'NaN', '{}')",
        "UPDATE by_key SET name = '王' WHERE id = 1",
        "BEGIN; INSERT INTO by_row VALUES (1, 'a', 'n'); UPDATE by_row SET name = 'b'; "
        "UPDATE by_row SET name = 'c'; COMMIT",
        "DELETE FROM by_key WHERE id = 2",
        "DELETE FROM by_row",
    ),
    "toast": (
        f"INSERT INTO by_key VALUES (1, 'a', {LONG_TEXT}); INSERT INTO by_row VALUES (1, 'a', {LONG_TEXT})",
        "UPDATE by_key SET name = 'b'",
        "UPDATE by_row SET name = 'b'",
        "UPDATE by_key SET id = 2",
        "UPDATE by_row SET id = 2",
    ),
    "keys": (
        "INSERT INTO by_key (id, name) VALUES (1, 'one'), (2, 'two')",
        "BEGIN; UPDATE by_key SET id = 3 WHERE id = 1; UPDATE by_key SET id = 1 WHERE id = 2; "
        "UPDATE by_key SET id = 2 WHERE id = 3; COMMIT",
        "UPDATE by_key SET id = id + 10",
    ),
    "rest": (
        "INSERT INTO by_key (id) VALUES (1); INSERT INTO by_row (id) VALUES (1)",
        "TRUNCATE by_key, by_row RESTART IDENTITY",
        "BEGIN; SELECT pg_logical_emit_message(true, 'cdc_merge.actor', 'wang'); "
        "INSERT INTO by_key (id) VALUES (2); COMMIT",
        "SELECT pg_logical_emit_message(false, 'stray', 'not in a transaction')",
        "SELECT pg_replication_origin_session_setup('erp')",
        "BEGIN; SELECT pg_replication_origin_xact_setup('0/AA', '2001-02-03 04:05:06+00'); "
        "INSERT INTO by_key (id) VALUES (3); COMMIT",
        "SELECT pg_replication_origin_session_reset()",
        "ALTER TABLE by_key ADD added int; ALTER TABLE by_key DROP name",
        "INSERT INTO by_key (id, added) VALUES (4, 5)",
    ),
    "forms": (
        "CREATE TABLE by_index (id int PRIMARY KEY, code text NOT NULL UNIQUE, note text)",
        "ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_code_key",
        "CREATE TABLE by_nothing (id int PRIMARY KEY)",
        "ALTER TABLE by_nothing REPLICA IDENTITY NOTHING",
        "CREATE TABLE made (id int PRIMARY KEY, net int, gross int GENERATED ALWAYS AS (net * 2) STORED)",
        "CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES by_key)",
        "INSERT INTO by_index VALUES (1, 'a', 'n')",
        "UPDATE by_index SET note = 'm'",
        "UPDATE by_index SET code = 'b', id = 2",
        "DELETE FROM by_index",
        "INSERT INTO by_nothing VALUES (1)",
        "INSERT INTO made (id, net) VALUES (1, 10); UPDATE made SET net = 11",
        "TRUNCATE by_key CASCADE",
        "BEGIN; INSERT INTO by_row VALUES (1, 'a', 'n'); SAVEPOINT s; INSERT INTO by_row VALUES (2, 'gone', ''); "
        "ROLLBACK TO s; INSERT INTO by_row VALUES (3, 'c', ''); COMMIT",
    ),
    "prepared": (
        "BEGIN; INSERT INTO by_row VALUES (1, 'later', ''); PREPARE TRANSACTION 'later'",
        "BEGIN; INSERT INTO by_row VALUES (2, 'never', ''); PREPARE TRANSACTION 'never'",
        "INSERT INTO by_row VALUES (3, 'before', '')",
        "COMMIT PREPARED 'later'",
        "ROLLBACK PREPARED 'never'",
    ),
    "leaves": (*PARTITIONED, *MOVED),
    "root": (*PARTITIONED, "ALTER PUBLICATION story SET (publish_via_partition_root = true)", *MOVED),
}


def record(server: DemoServer, version: str, story: str) -> Path:
    """Play one story on a fresh database and keep what its slot streams."""
    path = FOLDER / f"{story}-{version}.stream"
    name = f"story_{story}"
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
    with psycopg.connect(server.dsn(name), autocommit=True) as connection:
        connection.execute(SETUP)
        connection.execute(f"SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')".encode())
        if story == "rest":
            connection.execute("SELECT pg_replication_origin_create('erp')")
        for step in (*STORIES[story], END):
            connection.execute(step.encode())
    sender = WalSender("recording", server.dsn(name))
    try:
        identity = sender.identify()
        sender.start(name, "story", 0)
        with path.open("wb") as file:
            recorder = Recorder(file, Header(identity.system, identity.timelines.current, story, version))
            _capture(sender, recorder)
    finally:
        sender.close()
    return path


def _capture(sender: WalSender, recorder: Recorder) -> None:
    deadline = time.monotonic() + 30
    ended = False
    while time.monotonic() < deadline:
        for frame in sender.receive():
            recorder.write(time.time_ns() // 1000, frame)
            if frame[0] == XLOG_DATA:
                message = decode(frame, XLOG_DATA_HEADER_BYTES)
                ended = ended or isinstance(message, LogicalMessage) and message.prefix == "recording.end"
            elif ended:
                return
        sender.send_status(0, 0, time.time_ns() // 1000, requests_reply=ended)
        time.sleep(0.05)
    raise TimeoutError("the story's end did not come within 30 s")


def main() -> None:
    directory = new_directory("cdcm-record-")
    try:
        for version in VERSIONS:
            if installed(version) is None:
                print(f"PostgreSQL {version} is not installed: left out", file=sys.stderr)
                continue
            with start_server(
                directory / version, settings={"max_prepared_transactions": "5"}, version=version
            ) as server:
                for story in STORIES:
                    print(record(server, version, story))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
