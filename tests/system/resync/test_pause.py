"""A paused source is not read, is reported, keeps its slot, and resumes with no row lost or doubled."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.system.postgres.reading import run
from tests.system.resync.driven_sidecar import C1, DrivenSidecar, mark, start_and_copy

Make = Callable[..., DrivenSidecar]


def retained(sidecar: DrivenSidecar) -> int:
    return int(sidecar.source("crm")["slot"]["retained_bytes"] or 0)


def test_a_paused_source_is_not_read_and_resumes_without_a_lost_or_doubled_row(sidecar: Make) -> None:
    it = start_and_copy(sidecar(C1))
    assert it.posted("/api/v1/sources/crm/pause")["paused"] is True
    it.until_state("crm", "paused")
    for _ in range(5):
        run(it.dsns["crm"], "UPDATE customer SET points = points - 1, phone = phone || '7' WHERE no = 'C1'")
    run(it.dsns["erp"], "UPDATE customer SET points = points + 100 WHERE no = 'C1'")
    it.until_level("erp")
    assert it.merged("C1")["points"] == 110
    assert it.source("crm")["paused"] is True
    assert it.source("crm")["up"] is False
    assert it.posted("/api/v1/sources/crm/resume")["paused"] is False
    it.until_level()
    assert it.merged("C1") == {"name": "n", "phone": "177777", "points": 105}
    assert it.source("crm")["paused"] is False
    assert it.open_conflicts() == []


def test_a_pause_survives_a_restart_and_holds_the_watermark(sidecar: Make) -> None:
    it = start_and_copy(sidecar(C1))
    it.posted("/api/v1/sources/crm/pause")
    held = it.source("crm")["watermark"]
    it.kill()
    run(it.dsns["crm"], "UPDATE customer SET name = 'later' WHERE no = 'C1'")
    it.start()
    it.until_state("crm", "paused")
    it.until_state("erp", "streaming")
    it.until_level("erp")
    assert it.merged("C1")["name"] == "n"
    assert it.source("crm")["watermark"] <= held
    assert it.source("erp")["watermark"] > held
    it.posted("/api/v1/sources/crm/resume")
    it.until_level()
    assert it.merged("C1")["name"] == "later"


def test_wal_kept_by_the_slot_of_a_paused_source_is_still_reported(sidecar: Make) -> None:
    it = start_and_copy(sidecar(C1))
    it.posted("/api/v1/sources/crm/pause")
    before = it.until(lambda: retained(it), "the slot was looked at")
    run(it.dsns["crm"], "SELECT pg_logical_emit_message(false, 'fill', repeat('x', 3000000))")
    it.until(lambda: retained(it) > before + 2_000_000, "the slot was seen to keep more")
    source = it.source("crm")
    assert source["slot"]["active"] is False
    assert source["slot"]["wal_status"] == "reserved"
    assert source["lag_bytes"] > 2_000_000
    retained_bytes = [
        line for line in it.metrics().splitlines() if line.startswith('cdc_merge_slot_retained_bytes{source="crm"}')
    ]
    assert float(retained_bytes[0].split()[-1]) > before + 2_000_000
    assert 'cdc_merge_source_state{source="crm",state="paused"} 1.0' in it.metrics()


def test_the_slot_of_a_paused_source_has_no_reader(sidecar: Make) -> None:
    it = start_and_copy(sidecar(C1))
    it.posted("/api/v1/sources/crm/pause")
    found = run(it.dsns["crm"], f"SELECT active FROM pg_replication_slots WHERE slot_name = '{it.slot('crm')}'")
    assert found == [(False,)]


def test_pause_and_resume_are_idempotent(sidecar: Make) -> None:
    it = start_and_copy(sidecar(C1))
    for _ in range(2):
        assert it.posted("/api/v1/sources/crm/pause")["paused"] is True
    for _ in range(2):
        assert it.posted("/api/v1/sources/crm/resume")["paused"] is False
    run(it.dsns["crm"], "UPDATE customer SET points = points - 1 WHERE no = 'C1'")
    it.until_level()
    assert it.merged("C1")["points"] == 9


def test_pausing_requires_a_token_with_a_role(sidecar: Make) -> None:
    it = start_and_copy(sidecar(C1))
    assert it.post("/api/v1/sources/crm/pause", token=None)[0] == 403
    assert it.post("/api/v1/sources/crm/pause", token="v1ewer")[0] == 403
    assert it.post("/api/v1/sources/crm/pause", token="made up")[0] == 401
    assert it.source("crm")["paused"] is False
    status, problem = it.post("/api/v1/sources/nobody/pause")
    assert (status, problem["hint"]) == (404, "The configuration has: crm, erp.")


def test_the_command_line_pauses_a_running_sidecar_and_lists_it(sidecar: Make) -> None:
    it = start_and_copy(sidecar(C1))
    assert it.cli("source", "pause", "crm", "--dry-run").returncode == 0
    assert it.source("crm")["paused"] is False
    refused = it.cli("source", "pause", "crm", token=None)
    assert refused.returncode == 77
    assert "CDC_MERGE_TOKEN" in refused.stderr
    done = it.cli("source", "pause", "crm")
    assert (done.returncode, done.stdout) == (0, "")
    it.until_state("crm", "paused")
    listed = it.cli("source", "list").stdout
    assert [line.split()[1] for line in listed.splitlines() if line.startswith("crm")] == ["paused"]
    assert it.cli("source", "pause", "nobody").returncode == 1
    resumed = it.cli("--output", "json", "source", "resume", "crm")
    assert json.loads(resumed.stdout) == {"source": "crm", "paused": False, "resyncs": []}
    it.until_state("crm", "streaming")


def test_without_a_sidecar_a_pause_is_stored_for_the_next_start(sidecar: Make) -> None:
    it = start_and_copy(sidecar(C1))
    it.end()
    done = it.cli("source", "pause", "crm", token=None)
    assert done.returncode == 0, done.stderr
    assert "at the next start of the sidecar" in done.stderr
    listed = it.cli("--output", "json", "source", "list").stdout
    assert {each["name"]: each["paused"] for each in json.loads(listed)["items"]} == {"crm": True, "erp": False}
    it.start()
    it.until_state("crm", "paused")


def test_a_source_that_was_never_copied_can_be_paused_before_its_first_start(sidecar: Make) -> None:
    it = sidecar(C1)
    it.write_config()
    assert it.cli("source", "pause", "crm").returncode == 0
    it.start()
    it.until_state("crm", "paused")
    assert run(it.dsns["crm"], f"SELECT 1 FROM pg_replication_slots WHERE slot_name = '{it.slot('crm')}'") == []
    it.posted("/api/v1/sources/crm/resume")
    it.until_state("crm", "streaming")
    mark(it.dsns["crm"])
    it.until_level()
    assert it.held("C1", "crm") == {"name": "n", "phone": "1", "points": 10}
