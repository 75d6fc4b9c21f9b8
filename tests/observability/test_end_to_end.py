"""From an incident at a real database to the notification of a person, through real Prometheus and real Alertmanager.

The shipped rules and routes are used as they are, but time runs sixty times as fast: minutes are seconds.
"""

from __future__ import annotations

import json
import re
import shlex
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import psycopg
import pytest

from cdc_merge.app import Sidecar
from cdc_merge.cli.main import run
from cdc_merge.config.load import load
from cdc_merge.demo.servers import Server
from tests.conftest import drop_slots
from tests.observability.alerting import (
    ROOT,
    RULES,
    Parsed,
    Receiver,
    alertmanager,
    fetched,
    parsed,
    prometheus,
    queried,
    quick_alertmanager,
    wait_until,
)

CUSTOMERS: Final = 150
FASTER: Final = {"m": ("{}s", 1), "h": ("{}m", 1), "d": ("{}m", 24)}


def faster(duration: re.Match[str]) -> str:
    form, times = FASTER[duration["unit"]]
    return form.format(int(duration["number"]) * times)


def quick(text: str) -> str:
    """Ranges of an expression, sixty times as short. What is compared with `time()` stays."""
    return re.sub(r"(?<=\[)(?P<number>\d+)(?P<unit>[mhd])(?=\])", faster, text)


def quick_rules(directory: Path) -> str:
    """The shipped rules for a world in a hurry; the pattern of their files."""
    for file in RULES.glob("*.yaml"):
        document = parsed(file)
        for group in document["groups"]:
            group["interval"] = "1s"
            for rule in group["rules"]:
                rule["expr"] = quick(rule["expr"])
                if "for" in rule:
                    rule["for"] = re.sub(r"^(?P<number>\d+)(?P<unit>[mhd])$", faster, rule["for"])
        (directory / file.name).write_text(json.dumps(document))
    return str(directory / "*.yaml")


class Scene(NamedTuple):
    """Two systems, the sidecar that watches them, and what stands behind it."""

    crm: Server
    erp: Server
    sidecar: Sidecar
    prometheus: str
    receiver: Receiver
    config: Path

    def told(self, name: str, status: str = "firing", **labels: str) -> tuple[str, Parsed]:
        """The notification, once it has come: who received it, and the alert."""
        wait_until(lambda: self.receiver.find(name, status, **labels), f"{name} {status} {labels} is told")
        found = self.receiver.find(name, status, **labels)
        assert found is not None
        return found

    def execute(self, server: Server, statement: str) -> None:
        with psycopg.connect(server.dsn("shop"), autocommit=True) as connection:
            connection.execute(statement)


def prepared(server: Server) -> None:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute("create database shop")
    with psycopg.connect(server.dsn("shop"), autocommit=True) as connection:
        connection.execute("create table customer (no text primary key, phone text)")
        connection.execute("alter table customer replica identity full")
        fill = "insert into customer select 'C' || n, 'same' from generate_series(1, %s) n"
        connection.execute(fill, [CUSTOMERS])
        connection.execute("analyze customer")
        connection.execute("create publication cdc_merge for table customer")


def configured(directory: Path, servers: Mapping[str, Server]) -> Path:
    mapped = {"table": "public.customer", "key": "no", "fields": {"phone": "phone"}}
    document: dict[str, Any] = {
        "store": f"sqlite://{directory}/state.db",
        "http": {"listen": "127.0.0.1:0"},
        "settle": "200ms",
        "sources": {name: {"type": "postgres", "dsn": server.dsn("shop")} for name, server in servers.items()},
        "entities": {"customer": {"from": dict.fromkeys(servers, mapped), "fields": {"phone": {"merge": "mv"}}}},
    }
    path = directory / "cdc-merge.yaml"
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def scene(new_server: Callable[..., Server], tmp_path: Path) -> Iterator[Scene]:
    with ExitStack() as stack:
        receiver = Receiver()
        stack.callback(receiver.close)
        manager = stack.enter_context(alertmanager(tmp_path / "alertmanager", quick_alertmanager(receiver.address)))
        servers = {"crm": new_server(), "erp": new_server()}
        for server in servers.values():
            prepared(server)
        config_file = configured(tmp_path, servers)
        sidecar = Sidecar(load(config_file, {}))
        stack.callback(sidecar.stop)
        sidecar.start()
        (tmp_path / "rules").mkdir()
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "900ms", "evaluation_interval": "1s"},
            "rule_files": [quick_rules(tmp_path / "rules")],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [manager.removeprefix("http://")]}]}]},
            "scrape_configs": [{"job_name": "cdc-merge", "static_configs": [{"targets": [sidecar.address]}]}],
        }
        address = stack.enter_context(prometheus(tmp_path / "prometheus", config))
        yield Scene(servers["crm"], servers["erp"], sidecar, address, receiver, config_file)


@pytest.mark.timeout(240)
def test_a_storm_a_stopped_source_a_lost_slot_and_a_dead_sidecar_reach_the_right_people(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = "sum(cdc_merge_snapshot_rows_total) and sum(cdc_merge_source_up) == 2 and sum(up) == 1"
    wait_until(lambda: queried(scene.prometheus, copied), "both first copies are done and scraped")
    assert queried(scene.prometheus, copied)[0]["value"][1] == str(2 * CUSTOMERS)
    assert {alert["labels"]["alertname"] for _, alert in scene.receiver.told} <= {"CdcMergeWatchdog"}
    a_conflict_storm(scene)
    one_command(scene, capsys)
    a_stopped_source(scene)
    a_lost_slot(scene)
    a_dead_sidecar(scene)
    assert scene.receiver.find("CdcMergeWatchdog"), "the watchdog barked"


def a_conflict_storm(scene: Scene) -> None:
    for server, name in ((scene.crm, "crm"), (scene.erp, "erp")):
        scene.execute(server, f"update customer set phone = '{name}' || no")
    _, alert = scene.told("CdcMergeConflictStorm", entity="customer")

    def receivers() -> set[str]:
        return {to for to, each in scene.receiver.told if each["labels"] == alert["labels"]}

    wait_until(lambda: receivers() == {"pager", "data"}, "both who are to know are told")
    three_clicks(alert["annotations"]["console_url"])
    scene.told("CdcMergeConflictStorm", "resolved", entity="customer")


def three_clicks(console_url: str) -> None:
    """From the alert to the conflicting record and its history."""
    (conflict, *_) = fetched(console_url)["items"]
    root = console_url.partition("/api/")[0]
    record = f"{root}/api/v1/records/{conflict['entity']}/{urllib.parse.quote(conflict['key'], safe='')}"
    assert {source["values"]["phone"] for source in fetched(record)["sources"].values()} == {
        f"{source}{conflict['key']}" for source in ("crm", "erp")
    }
    writes = [change for change in fetched(f"{record}/history")["items"] if change["kind"] == "write"]
    assert {write["source"] for write in writes} == {"crm", "erp"}


def one_command(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    """What stands in the alert, pasted as it is: the conflict, the record and its history. And the page that it names."""
    _, alert = scene.told("CdcMergeConflictStorm", entity="customer")
    program, *words = shlex.split(alert["annotations"]["command"])
    assert program == "cdc-merge"
    assert run(["--config", str(scene.config), *words]) == 0
    conflict, record, history = re.split(r"\n\n(?=customer C|STAMP)", capsys.readouterr().out)
    (key,) = re.findall(r"^customer (C\d+), phone: concurrent_update$", conflict, re.M)
    assert f"wrote “crm{key}”" in conflict
    assert re.search(rf"^phone +\S+ +crm{key} +erp{key}", record, re.M)
    assert len(re.findall(rf"(?:crm|erp) +write .*same → (?:crm|erp){key}", history)) == 2
    assert (ROOT / alert["annotations"]["runbook_url"]).is_file()


def a_stopped_source(scene: Scene) -> None:
    scene.erp.kill()
    receiver, alert = scene.told("CdcMergeSourceDown", source="erp")
    assert receiver == "pager"
    assert alert["annotations"]["description"].endswith("no connection to source erp for 5 minutes and keeps trying.")
    scene.erp.start()
    scene.told("CdcMergeSourceDown", "resolved", source="erp")
    assert scene.receiver.find("CdcMergeSourceDown", source="crm") is None


def a_lost_slot(scene: Scene) -> None:
    with psycopg.connect(scene.erp.dsn("shop"), autocommit=True) as connection:
        drop_slots(connection, "shop")
    receiver, _ = scene.told("CdcMergeSlotLost", source="erp", problem="slot_missing")
    assert receiver == "dba-pager"


def a_dead_sidecar(scene: Scene) -> None:
    scene.sidecar.stop()
    receiver, _ = scene.told("CdcMergeDown")
    assert receiver == "pager"
