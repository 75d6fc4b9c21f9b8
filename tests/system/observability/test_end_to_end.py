"""From an incident at a real database to the notification of a person, through real Prometheus and real Alertmanager.

The shipped rules and routes are used as they are, but time runs sixty times as fast: minutes are seconds.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import psycopg
import pytest

from cdc_merge.app.sidecar import Sidecar
from cdc_merge.config.load import load
from cdc_merge.demo.servers import DemoServer
from tests.contracts.clicking import Person
from tests.support.alerting import (
    ROOT,
    Parsed,
    Receiver,
    alertmanager,
    free_port,
    prometheus,
    queried,
    quick_alertmanager,
    wait_until,
)
from tests.support.databases import drop_slots
from tests.system.observability.quick_rules import quick_rules

CUSTOMERS: Final = 150
TOKEN: Final = "s3cret"
DOCTOR_EVERY_S: Final = 1.0  # a minute of this world


class Scene(NamedTuple):
    """Two systems, the sidecar that watches them, what stands behind it, and a shell beside its configuration."""

    crm: DemoServer
    erp: DemoServer
    sidecar: Sidecar
    prometheus: str
    receiver: Receiver
    config: Path

    def notified(self, name: str, status: str = "firing", **labels: str) -> tuple[str, Parsed]:
        """The notification, once it has come: who received it, and the alert."""
        wait_until(lambda: self.receiver.find(name, status, **labels), f"{name} {status} {labels} is notified")
        found = self.receiver.find(name, status, **labels)
        assert found is not None
        return found

    def typed(self, line: str) -> str:
        """What a command line prints that is pasted into a shell as it is."""
        path = f"{self.config.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "CDC_MERGE_TOKEN": TOKEN}
        ended = subprocess.run(
            ["sh", "-c", line], cwd=self.config.parent, env=environment, capture_output=True, text=True, timeout=120
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def execute(self, server: DemoServer, statement: str) -> None:
        with psycopg.connect(server.dsn("shop"), autocommit=True) as connection:
            connection.execute(statement)


def prepared(server: DemoServer) -> None:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute("create database shop")
    with psycopg.connect(server.dsn("shop"), autocommit=True) as connection:
        connection.execute("create table customer (no text primary key, phone text)")
        connection.execute("alter table customer replica identity full")
        fill = "insert into customer select 'C' || n, 'same' from generate_series(1, %s) n"
        connection.execute(fill, [CUSTOMERS])
        connection.execute("analyze customer")
        connection.execute("create publication cdc_merge for table customer")


def configured(directory: Path, servers: Mapping[str, DemoServer]) -> Path:
    mapped = {"table": "public.customer", "key": "no", "fields": {"phone": "phone"}}
    document: dict[str, Any] = {
        "store": f"sqlite://{directory}/state.db",
        "http": {"listen": f"127.0.0.1:{free_port()}", "metrics": "open"},
        "access": {"tokens_file": "tokens"},
        "settle": "200ms",
        "sources": {name: {"type": "postgres", "dsn": server.dsn("shop")} for name, server in servers.items()},
        "entities": {"customer": {"from": dict.fromkeys(servers, mapped), "fields": {"phone": {"merge": "mv"}}}},
    }
    path = directory / "cdc-merge.yaml"
    path.write_text(json.dumps(document))
    (directory / "tokens").write_text(f"{TOKEN} ann\n")
    return path


def installed(directory: Path) -> None:
    """The program `cdc-merge` of this interpreter in `bin` of the directory."""
    program = directory / "bin" / "cdc-merge"
    program.parent.mkdir()
    lines = (
        f"#!{sys.executable}",
        "import sys",
        f"sys.path.insert(0, {str(ROOT)!r})",
        "from cdc_merge.cli.main import main",
    )
    program.write_text("\n".join((*lines, "main()", "")))
    program.chmod(0o755)


@pytest.fixture
def scene(new_server: Callable[..., DemoServer], tmp_path: Path) -> Iterator[Scene]:
    with ExitStack() as stack:
        receiver = Receiver()
        stack.callback(receiver.close)
        manager = stack.enter_context(alertmanager(tmp_path / "alertmanager", quick_alertmanager(receiver.address)))
        servers = {"crm": new_server(), "erp": new_server()}
        for server in servers.values():
            prepared(server)
        config_file = configured(tmp_path, servers)
        installed(tmp_path)
        sidecar = Sidecar(load(config_file, {}))
        stack.callback(sidecar.stop)
        sidecar.doctor.period_s = DOCTOR_EVERY_S
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


@pytest.mark.timeout(300)
def test_a_storm_a_lost_identity_a_stopped_source_a_lost_slot_and_a_dead_sidecar_notify_and_resolve(
    scene: Scene,
) -> None:
    copied = "sum(cdc_merge_snapshot_rows_total) and sum(cdc_merge_source_up) == 2 and sum(up) == 1"
    wait_until(lambda: queried(scene.prometheus, copied), "both first copies are done and scraped")
    assert queried(scene.prometheus, copied)[0]["value"][1] == str(2 * CUSTOMERS)
    assert {alert["labels"]["alertname"] for _, alert in scene.receiver.notifications} <= {"CdcMergeWatchdog"}
    a_conflict_storm(scene)
    one_command(scene)
    with a_lost_identity(scene):
        a_stopped_source(scene)
    a_lost_slot(scene)
    scene.notified("CdcMergeReplicaIdentityLost", "resolved", source="crm", check="TAB01")
    a_dead_sidecar(scene)
    assert scene.receiver.find("CdcMergeWatchdog"), "the watchdog barked"


def a_conflict_storm(scene: Scene) -> None:
    for server, name in ((scene.crm, "crm"), (scene.erp, "erp")):
        scene.execute(server, f"update customer set phone = '{name}' || no")
    _, alert = scene.notified("CdcMergeConflictStorm", entity="customer")

    def receivers() -> set[str]:
        return {to for to, each in scene.receiver.notifications if each["labels"] == alert["labels"]}

    wait_until(lambda: receivers() == {"pager", "data"}, "both receivers are notified")
    three_clicks(alert["annotations"]["console_url"])
    scene.notified("CdcMergeConflictStorm", "resolved", entity="customer")


def three_clicks(console_url: str) -> None:
    """From the notification to a conflicting record and its history, by nothing but links."""
    person = Person(TOKEN)
    listed = person.follow(console_url)
    record = person.click(listed, "customer C")
    key = record.title.removeprefix("customer ")
    assert {f"crm{key}", f"erp{key}"} <= set(record.text.splitlines())
    history = person.click(record, "History")
    output = history.text.splitlines()
    assert {f"crm{key}", f"erp{key}"} <= set(output)
    assert output.count("phone: same →") == 2
    assert person.clicks == 3


def one_command(scene: Scene) -> None:
    """What stands in the alert, pasted as it is: the conflict, the record and its history. And the page that it names."""
    _, alert = scene.notified("CdcMergeConflictStorm", entity="customer")
    output = scene.typed(alert["annotations"]["command"])
    conflict, record, history = re.split(r"\n\n(?=customer C|STAMP)", output)
    (key,) = re.findall(r"^customer (C\d+), phone: concurrent_update$", conflict, re.M)
    assert f"wrote “crm{key}”" in conflict
    assert re.search(rf"^phone +\S+ +crm{key} +erp{key}", record, re.M)
    assert len(re.findall(rf"(?:crm|erp) +write .*same → (?:crm|erp){key}", history)) == 2
    assert (ROOT / alert["annotations"]["runbook_url"]).is_file()


def a_stopped_source(scene: Scene) -> None:
    scene.erp.kill()
    receiver, alert = scene.notified("CdcMergeSourceDown", source="erp")
    assert receiver == "pager"
    assert alert["annotations"]["description"].endswith("no connection to source erp for 5 minutes and keeps trying.")
    scene.erp.start()
    scene.notified("CdcMergeSourceDown", "resolved", source="erp")
    assert scene.receiver.find("CdcMergeSourceDown", source="crm") is None


@contextmanager
def a_lost_identity(scene: Scene) -> Iterator[None]:
    """A table of the running server loses its replica identity. Only the doctor's check each minute detects that."""
    scene.execute(scene.crm, "alter table customer replica identity nothing")
    yield
    receiver, alert = scene.notified("CdcMergeReplicaIdentityLost", source="crm", check="TAB01")
    assert receiver == "dba-pager"
    assert "Rows of a table of source crm" in alert["annotations"]["description"]
    assert scene.receiver.find("CdcMergeReplicaIdentityLost", source="erp") is None
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        scene.execute(scene.crm, "update customer set phone = 'x' where no = 'C1'")
    scene.execute(scene.crm, "alter table customer replica identity full")


def a_lost_slot(scene: Scene) -> None:
    with psycopg.connect(scene.erp.dsn("shop"), autocommit=True) as connection:
        drop_slots(connection, "shop")
    receiver, _ = scene.notified("CdcMergeSlotLost", source="erp", problem="slot_missing")
    assert receiver == "dba-pager"
    scene.typed("cdc-merge source resync erp --wait")
    scene.notified("CdcMergeSlotLost", "resolved", source="erp", problem="slot_missing")


def a_dead_sidecar(scene: Scene) -> None:
    scene.sidecar.stop()
    receiver, _ = scene.notified("CdcMergeDown")
    assert receiver == "pager"
    again = Sidecar(load(scene.config, {}))
    try:
        again.start()
        scene.notified("CdcMergeDown", "resolved")
    finally:
        again.stop()
