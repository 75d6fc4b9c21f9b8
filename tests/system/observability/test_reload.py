"""A reload at a running sidecar: what it takes, what it refuses, and that the result is visible."""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdc_merge.demo.servers import DemoServer
from tests.support.alerting import Parsed, fetched, wait_until
from tests.support.process_pool import ProcessPool
from tests.support.shop import TOKEN, Shop, metric, running_sidecar, shop, watching_sidecar

LATEST = {"name": "phones", "on": "customer.phone", "severity": "critical"}
SUCCESSFUL = "cdc_merge_config_last_reload_successful"
SINCE = "cdc_merge_config_last_reload_success_timestamp_seconds"


@pytest.fixture
def place(postgres_server: DemoServer, tmp_path: Path) -> Iterator[Shop]:
    with shop(postgres_server, tmp_path) as opened:
        yield opened


def reload(address: str) -> tuple[int, Parsed]:
    """POST /-/reload: the status and the document."""
    request = urllib.request.Request(f"{address}/-/reload", b"", {"Authorization": f"Bearer {TOKEN}"})
    try:
        with urllib.request.urlopen(request, timeout=40) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_rule_that_is_reloaded_judges_what_comes_next(place: Shop) -> None:
    with watching_sidecar(place) as (_, address):
        assert place.make_conflict(address, "C1")["severity"] == "medium"
        since = metric(address, SINCE)
        place.write(rules=[LATEST])
        assert reload(address) == (200, {"reloaded": True})
        assert [rule["name"] for rule in fetched(f"{address}/api/v1/rules")["items"]] == ["phones"]
        conflict = place.make_conflict(address, "C2")
        assert conflict["severity"] == "critical"
        assert metric(address, SINCE) > since
        assert metric(address, SUCCESSFUL) == 1


def test_a_check_that_is_reloaded_is_evaluated_and_counted(place: Shop) -> None:
    checks = [{"name": "short", "expr": "size(record.phone) < 9", "severity": "high"}]
    with watching_sidecar(place) as (_, address):
        place.document["entities"]["customer"]["checks"] = checks
        place.write()
        assert reload(address)[0] == 200
        assert metric(address, 'cdc_merge_rule_evaluations_total{outcome="false",rule="short"}') == 0
        for source in place.dsns:
            place.execute(source, "update customer set phone = 'much too long' where no = 'C3'")
        query = f"{address}/api/v1/conflicts?status=open&kind=invariant"
        wait_until(lambda: fetched(query)["items"], "the check is broken")
        assert metric(address, 'cdc_merge_rule_evaluations_total{outcome="false",rule="short"}') >= 1


def test_a_file_that_cannot_be_used_leaves_the_old_one_in_force_and_says_so(place: Shop) -> None:
    with watching_sidecar(place) as (_, address):
        place.write(rules=[{**LATEST, "on": "customer.phon"}], settle="soon")
        status, problem = reload(address)
        assert status == 422
        assert len(problem["errors"]) == 2
        assert metric(address, SUCCESSFUL) == 0
        assert fetched(f"{address}/api/v1/rules")["items"] == []
        place.write()
        assert reload(address)[0] == 200
        assert metric(address, SUCCESSFUL) == 1


def test_a_change_that_needs_a_restart_is_refused_as_a_whole(place: Shop) -> None:
    with watching_sidecar(place) as (_, address):
        place.document["sources"]["erp"]["slot"] = "another"
        place.write(rules=[LATEST])
        status, problem = reload(address)
        assert status == 422
        (error,) = problem["errors"]
        assert "sources.erp.slot: this cannot change while the sidecar runs (restart" in error["detail"]
        assert place.make_conflict(address, "C4")["severity"] == "medium"


def test_sighup_reloads_a_running_process_and_the_log_says_so(
    place: Shop, process_pool: ProcessPool, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with running_sidecar(process_pool, place.file, log, "--log-format", "json") as process:
        place.write(rules=[LATEST], log={"level": "debug"})
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: '"config_reloaded"' in log.read_text(), "it has reloaded")
        wait_until(lambda: '"batch_merged"' in log.read_text(), "it logs at level debug")
        place.write(settle="soon")
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: '"config_reload_failed"' in log.read_text(), "it has refused")
        assert process.poll() is None
    (line,) = [line for line in log.read_text().splitlines() if "config_reload_failed" in line]
    assert "settle" in json.loads(line)["cdc_merge.problems"]


def test_an_open_question_is_judged_again_by_the_reloaded_rules(place: Shop) -> None:
    with watching_sidecar(place) as (_, address):
        open_id = place.make_conflict(address, "C6")["id"]
        place.write(rules=[{"name": "phones", "on": "customer.phone", "decide": {"auto": "latest"}}])
        assert reload(address)[0] == 200
        conflict = f"{address}/api/v1/conflicts/{open_id}"
        wait_until(lambda: fetched(conflict)["status"] == "closed", "the rule answers what was open")
        assert fetched(conflict)["resolution"] == "auto"
