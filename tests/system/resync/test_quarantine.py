"""Changes of rows that were there before anybody looked wait for their names, over kills, and are merged then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.system.postgres.reading import run
from tests.system.resync.driven_sidecar import DrivenSidecar

Make = Callable[..., DrivenSidecar]
# The business key is not what names a row in the log; of C2 it is so long that it is stored apart and not sent again.
LONG = "C2" + "x" * 5_000
BEFORE = (
    "ALTER TABLE customer DROP CONSTRAINT customer_pkey",
    "ALTER TABLE customer ADD COLUMN id int PRIMARY KEY",
    "ALTER TABLE customer ALTER COLUMN no SET STORAGE EXTERNAL",
    "INSERT INTO customer (id, no, name, phone, points) VALUES (1, 'C1', 'n', '1', 10)",
    f"INSERT INTO customer (id, no, name, phone, points) VALUES (2, '{LONG}', 'n', '1', 10)",
)


def figure(sidecar: DrivenSidecar, name: str, **labels: str) -> float:
    """The sum of the samples with these labels."""
    wanted = labels.items()
    return sum(
        sample.value
        for family in text_string_to_metric_families(sidecar.metrics())
        for sample in family.samples
        if sample.name == f"cdc_merge_{name}" and wanted <= sample.labels.items()
    )


def kept(sidecar: DrivenSidecar) -> float:
    return figure(sidecar, "quarantined_events", source="crm", table="public.customer")


def history(sidecar: DrivenSidecar, key: str) -> Iterator[dict[str, Any]]:
    return (each for each in sidecar.get(f"/api/v1/records/customer/{key}/history")["items"] if each["source"] == "crm")


@pytest.fixture
def begun(sidecar: Make) -> DrivenSidecar:
    """Both rows are older than the slot, and nothing was copied."""
    it = sidecar(*BEFORE, snapshot="never")
    for source, dsn in it.dsns.items():
        run(dsn, f"SELECT pg_create_logical_replication_slot('{it.slot(source)}', 'pgoutput')")
    it.start()
    for source in it.dsns:
        it.until_state(source, "streaming")
    it.until_level()
    return it


def test_a_delete_of_an_unknown_row_is_quarantined_over_kills_and_merged_when_its_key_is_known(
    begun: DrivenSidecar,
) -> None:
    it = begun
    run(it.dsns["erp"], "UPDATE customer SET phone = '2' WHERE id = 1")
    it.until_level()
    run(it.dsns["crm"], "DELETE FROM customer WHERE id = 1")
    it.until_level()
    assert kept(it) == 1
    assert figure(it, "quarantined_total", source="crm") == figure(it, "parked_total", source="crm") == 1
    assert it.merged("C1")["phone"] == "2", "its business key is unknown"
    it.kill()
    it.start()
    it.until_level()
    assert kept(it) == 1
    assert (it.source("crm")["parked"], it.source("erp")["parked"]) == (1, 0)
    run(it.dsns["crm"], "INSERT INTO customer (id, no, name, phone, points) VALUES (1, 'C1', 'n', '3', 10)")
    it.until_level()
    assert kept(it) == 0
    assert figure(it, "released_total", source="crm", outcome="named") == 1
    ended, begun_again = list(history(it, "C1"))
    assert (ended["kind"], begun_again["kind"]) == ("delete", "write"), (ended, begun_again)
    assert ended["stamp"] < begun_again["stamp"]
    assert ended["place"]["lsn"] != begun_again["place"]["lsn"]


def test_an_update_without_its_key_is_quarantined_and_merged_after_a_resync(begun: DrivenSidecar) -> None:
    it = begun
    run(it.dsns["crm"], "UPDATE customer SET phone = '7' WHERE id = 2")
    it.until_level()
    assert kept(it) == 1
    it.posted("/api/v1/sources/crm/resync", {})
    it.until_resynced("crm")
    assert kept(it) == 0
    assert [each["kind"] for each in history(it, LONG)] == ["write", "snapshot"]
    assert it.held(LONG, "crm")["phone"] == "7"


def test_a_truncate_ends_the_quarantine_of_the_tables_rows(begun: DrivenSidecar) -> None:
    it = begun
    run(it.dsns["crm"], "DELETE FROM customer WHERE id = 1")
    it.until_level()
    run(it.dsns["crm"], "TRUNCATE customer")
    it.until_level()
    assert kept(it) == 0
    assert figure(it, "released_total", source="crm", outcome="emptied") == 1


def test_a_full_old_row_resolves_the_keys_of_earlier_changes(begun: DrivenSidecar) -> None:
    """As the runbook says: REPLICA IDENTITY FULL, and the next change of the row is enough."""
    it = begun
    run(it.dsns["crm"], "UPDATE customer SET phone = '7' WHERE id = 2")
    it.until_level()
    run(it.dsns["crm"], "ALTER TABLE customer REPLICA IDENTITY FULL")
    run(it.dsns["crm"], "UPDATE customer SET points = 11 WHERE id = 1")
    it.until_level()
    assert kept(it) == 1
    run(it.dsns["crm"], "UPDATE customer SET points = 12 WHERE id = 2")
    it.until_level()
    assert kept(it) == 0
    earlier, naming = history(it, LONG)
    assert earlier["stamp"] < naming["stamp"]
    assert it.held(LONG, "crm") == {"name": "n", "phone": "7", "points": 12}
    it.kill()
    run(it.dsns["crm"], "ALTER TABLE customer REPLICA IDENTITY DEFAULT", "UPDATE customer SET points = 13 WHERE id = 2")
    run(it.dsns["crm"], "ALTER TABLE customer REPLICA IDENTITY FULL", "UPDATE customer SET points = 14 WHERE id = 2")
    it.start()
    it.until_level()
    assert it.held(LONG, "crm")["points"] == 14
    assert kept(it) == 0
