"""Heartbeats on a real server: numbered without gaps, through lost connections; refused ones hold nothing up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cdc_merge.app.sidecar import Sidecar
from cdc_merge.config.load import load
from cdc_merge.model import SourceChanged
from cdc_merge.model.heartbeats import HEARTBEAT_PREFIX, Heartbeat, HeartbeatGaps, heartbeats_in
from cdc_merge.sources.postgres.protocol.pgoutput import LogicalMessage, decode
from cdc_merge.sources.postgres.reader_limits import ReaderLimits
from tests.system.postgres.customer_table import SETUP, TABLES
from tests.system.postgres.reading import Reading, confirmed_lsn, run, wait_for, wal_lsn

OFTEN_S = 0.05
MESSAGE = "pg_logical_emit_message(bool, text, text, bool)"
CONFIGURATION = """
store: sqlite://{home}/state.db
http: {{ listen: "127.0.0.1:0" }}
sources:
  crm: {{ type: postgres, dsn: "{dsn}", heartbeat: 1s }}
entities:
  customer:
    from:
      crm: {{ table: public.customer, key: id, fields: {{ name: name }} }}
"""


@pytest.fixture
def dsn(database: str) -> str:
    run(database, *SETUP)
    return database


def beats(reading: Reading) -> list[Heartbeat]:
    return [beat for tx in reading.transactions for beat in heartbeats_in(tx.messages, reading.slot)]


def overheard(dsn: str) -> list[dict[str, Any]]:
    """The heartbeats in the slot `beside`."""
    options = "'proto_version', '1', 'publication_names', 'cdc_merge', 'messages', 'true'"
    messages = [
        decode(data)
        for (data,) in run(
            dsn, f"SELECT data FROM pg_logical_slot_peek_binary_changes('beside', NULL, NULL, {options})"
        )
    ]
    return [
        json.loads(message.content)
        for message in messages
        if isinstance(message, LogicalMessage) and message.prefix == HEARTBEAT_PREFIX
    ]


def test_heartbeats_come_back_in_order_through_lost_connections(dsn: str) -> None:
    with Reading(dsn, TABLES, heartbeat_s=OFTEN_S).start() as reading:
        reading.until_copied()
        for wanted in (10, 20, 30):
            reading.until(lambda wanted=wanted: len(beats(reading)) >= wanted, f"{wanted} heartbeats came")  # type: ignore[misc] # a fact
            run(dsn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cdc_merge/crm'")
        reading.until(lambda: len(beats(reading)) >= 40, "they went on")
        pulse = HeartbeatGaps()
        assert [pulse.lost_before(beat) for beat in beats(reading)] == [0] * len(beats(reading))
        assert len(set(beats(reading))) == len(beats(reading))
        status = reading.source.status()
        assert status.heartbeats_permitted is True
        assert len(beats(reading)) - 5 <= status.heartbeats_sent
        assert reading.streamed == []


def test_without_heartbeat_configured_nothing_is_written_into_the_source(dsn: str) -> None:
    with Reading(dsn, TABLES).start() as reading:
        reading.until_copied()
        run(dsn, "INSERT INTO customer VALUES (1, 'a', 0)")
        reading.until_passed(wal_lsn(dsn))
        prefixes = [message.prefix for tx in reading.transactions for message in tx.messages]
        assert HEARTBEAT_PREFIX not in prefixes
        status = reading.source.status()
        assert (status.heartbeats_sent, status.heartbeats_permitted) == (0, None)


def test_idle_keepalives_move_the_slot_where_heartbeats_are_refused(dsn: str) -> None:
    run(dsn, f"REVOKE EXECUTE ON FUNCTION {MESSAGE} FROM PUBLIC")
    run(dsn, "DROP ROLE IF EXISTS faint", "CREATE ROLE faint LOGIN REPLICATION", "GRANT SELECT ON customer TO faint")
    faint, soon = dsn.replace("user=postgres", "user=faint"), ReaderLimits(heartbeat_retry_s=0.1)
    with Reading(faint, TABLES, heartbeat_s=OFTEN_S, limits=soon).start() as reading:
        reading.until(lambda: reading.source.status().heartbeats_permitted is False, "it was refused")
        run(dsn, "CREATE TABLE elsewhere AS SELECT g FROM generate_series(1, 10000) g")
        end = wal_lsn(dsn)
        reading.until(lambda: confirmed_lsn(dsn, reading.slot) >= end, "the slot moved behind unpublished work")
        assert beats(reading) == []
        run(dsn, f"GRANT EXECUTE ON FUNCTION {MESSAGE} TO faint")
        reading.until(lambda: beats(reading), "once granted, they come")
        said = [
            fact.sentence for fact in reading.facts if isinstance(fact, SourceChanged) and "heartbeats" in fact.sentence
        ]
        assert [sentence.partition(" (")[0] for sentence in said] == [
            "Source crm may not write heartbeats",
            "Source crm may write heartbeats again.",
        ]
        assert reading.source.status().reconnects == 0
    run(dsn, "DROP OWNED BY faint", "DROP ROLE faint")


def test_a_lost_heartbeat_is_counted_and_the_round_trip_is_measured(dsn: str, tmp_path: Path) -> None:
    config = tmp_path / "cdc-merge.yaml"
    config.write_text(CONFIGURATION.format(home=tmp_path, dsn=dsn), encoding="utf-8")
    sidecar = Sidecar(load(config, {}))
    run(dsn, "SELECT pg_create_logical_replication_slot('beside', 'pgoutput')")

    def figure(name: str) -> float:
        return sidecar.metrics.registry.get_sample_value(f"cdc_merge_heartbeat_{name}", {"source": "crm"}) or 0.0

    try:
        sidecar.start()
        wait_for(lambda: figure("received_total") >= 1, "a heartbeat was merged")
        assert figure("lost_total") == 0
        wait_for(lambda: figure("permitted") == 1, "the reader may write")
        assert 0 < figure("round_trip_seconds_sum") / figure("round_trip_seconds_count") < 5
        last = wait_for(lambda: overheard(dsn), "a heartbeat of this run was overheard")[-1]
        skipping = json.dumps(last | {"sequence": last["sequence"] + 100})
        run(dsn, f"SELECT pg_logical_emit_message(true, '{HEARTBEAT_PREFIX}', '{skipping}')")
        lost = wait_for(lambda: figure("lost_total"), "the gap was counted")
        assert 95 <= lost <= 100
    finally:
        sidecar.stop()
