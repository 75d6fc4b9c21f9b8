"""Which receiver gets which alert: the routes as amtool reads them, and the inhibitions of a real Alertmanager."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import pytest

from tests.support.alerting import ROOT, Receiver, alertmanager, fetched, program, quick_alertmanager, wait_until
from tests.system.observability.alert_rules import ALERTS

CONFIG = ROOT / "deploy" / "alertmanager" / "alertmanager.yml"
SIDECAR = {"job": "cdc-merge", "instance": "sidecar:8787"}


def amtool(*arguments: str) -> str:
    command = [program("amtool", "prometheus-alertmanager"), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout.strip()


def test_alertmanager_takes_the_configuration() -> None:
    amtool("check-config", str(CONFIG))


@pytest.mark.parametrize(
    ("name", "severity", "receivers"),
    [
        ("CdcMergeWatchdog", "none", "watchdog"),
        ("CdcMergeDown", "critical", "pager"),
        ("CdcMergeSourceDown", "critical", "pager"),
        ("CdcMergeSourceBehind", "warning", "chat"),
        ("CdcMergeSlotLost", "critical", "dba-pager"),
        ("CdcMergeSlotInvalidationSoon", "critical", "dba-pager"),
        ("CdcMergeSlotInvalidationSoon", "warning", "dba-chat"),
        ("CdcMergePositionGapDetected", "critical", "dba-pager"),
        ("CdcMergeReplicaIdentityLost", "critical", "dba-pager"),
        ("CdcMergePublicationDrift", "warning", "dba-chat"),
        ("CdcMergeRoleExpiresSoon", "critical", "dba-pager"),
        ("CdcMergeRoleExpiresSoon", "warning", "dba-chat"),
        ("CdcMergeForeignSlotAbandoned", "warning", "dba-chat"),
        ("CdcMergeFailoverSlotNotSynced", "warning", "dba-chat"),
        ("CdcMergeCatalogXminOld", "critical", "dba-pager"),
        ("CdcMergeClockSkew", "warning", "dba-chat"),
        ("CdcMergeConflictStorm", "critical", "pager,data"),
        ("CdcMergeConflictSpike", "warning", "data"),
        ("CdcMergeAnswerBudgetBurning", "warning", "data"),
        ("CdcMergeLoopDetected", "warning", "data"),
        ("CdcMergeConfigReloadFailed", "warning", "chat"),
        ("CdcMergeBackPressure", "warning", "chat"),
        ("CdcMergeConflictUnanswered", "critical", "data"),
        ("CdcMergeConflictUnanswered", "info", "data"),
        ("CdcMergeFreshnessBudgetBurning", "critical", "pager"),
        ("CdcMergeFreshnessBudgetBurning", "warning", "chat"),
    ],
)
def test_an_alert_goes_to_those_who_can_mend_it(name: str, severity: str, receivers: str) -> None:
    team = {
        rule["labels"]["team"] for rule in ALERTS if (rule["alert"], rule["labels"]["severity"]) == (name, severity)
    }
    labels = [f"alertname={name}", f"severity={severity}", f"team={team.pop()}"]
    amtool("config", "routes", "test", f"--config.file={CONFIG}", f"--verify.receivers={receivers}", *labels)


# ---------------------------------------------------------------- what is kept back


@pytest.fixture(scope="module")
def running_alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    receiver = Receiver()
    directory = tmp_path_factory.mktemp("alerting") / "alertmanager"
    try:
        with alertmanager(directory, quick_alertmanager(receiver.address)) as address:
            yield address
    finally:
        receiver.close()


def inhibited(address: str, cause: dict[str, str], effect: dict[str, str]) -> bool:
    """Whether the effect is inhibited while its cause fires, on a job of their own."""
    job = f"{named(cause)} {named(effect)} {len(fetched(f'{address}/api/v2/alerts'))}"
    posted(address, job, cause, effect)
    # Alertmanager learns of causes one after the other and beside its answers: what it has made of a pair that was
    # posted later says that it knows this cause, too.
    later = f"after {job}"
    posted(address, later, alert("CdcMergeDown"), alert("CdcMergeSourceBehind", "warning"))
    wait_until(lambda: "suppressed" in states(address, later).values(), "Alertmanager knows of every cause", 20)
    found = states(address, job)
    assert found[named(cause)] == "active"
    return found[named(effect)] == "suppressed"


def posted(address: str, job: str, *alerts: Mapping[str, str]) -> None:
    begun = datetime.now(UTC).isoformat()
    fetched(
        f"{address}/api/v2/alerts", [{"labels": {**SIDECAR, **each, "job": job}, "startsAt": begun} for each in alerts]
    )


def states(address: str, job: str) -> dict[str, str]:
    alerts = [each for each in fetched(f"{address}/api/v2/alerts") if each["labels"]["job"] == job]
    return {named(each["labels"]): each["status"]["state"] for each in alerts}


def named(labels: Mapping[str, str]) -> str:
    return f"{labels['alertname']} {labels['severity']}"


def alert(name: str, severity: str = "critical", **labels: str) -> dict[str, str]:
    return {"alertname": name, "severity": severity, **labels}


def finding(check: str) -> dict[str, str]:
    return alert("CdcMergeDoctorFinding", "warning", source="crm", check=check)


@pytest.mark.parametrize(
    ("cause", "effect"),
    [
        (alert("CdcMergeDown"), alert("CdcMergeSourceBehind", "warning", source="crm")),
        (alert("CdcMergeSourceDown", source="crm"), alert("CdcMergeSourceBehind", "warning", source="crm")),
        (alert("CdcMergeStoreHeld"), alert("CdcMergeSourceBehind", "warning", source="crm")),
        (alert("CdcMergeSlotLost", source="crm"), alert("CdcMergeSlotInactive", "warning", source="crm")),
        (alert("CdcMergeSlotLost", source="crm"), alert("CdcMergeCatalogXminOld", source="crm")),
        (alert("CdcMergeSlotLost", source="crm"), alert("CdcMergeFailoverSlotNotSynced", "warning", source="crm")),
        (alert("CdcMergeSlotLost", source="crm"), alert("CdcMergePositionGapDetected", source="crm", kind="slot_lost")),
        (alert("CdcMergeSlotLost", source="crm"), finding("SLT04")),
        (alert("CdcMergeSlotUnreserved", source="crm"), finding("SLT03")),
        (alert("CdcMergeCatalogXminOld", "warning", source="crm"), finding("SLT07")),
        (
            alert("CdcMergeCatalogXminOld", source="crm"),
            alert("CdcMergeCatalogXminOld", "warning", source="crm"),
        ),
        (alert("CdcMergeSourceStalled", source="crm"), alert("CdcMergeFreshnessBudgetBurning", source="crm")),
        (
            alert("CdcMergeSlotInvalidationSoon", source="crm"),
            alert("CdcMergeSlotInvalidationSoon", "warning", source="crm"),
        ),
        (alert("CdcMergeConflictStorm", entity="order"), alert("CdcMergeConflictSpike", "warning", entity="order")),
    ],
)
def test_what_a_larger_alert_explains_is_kept_back(
    running_alertmanager: str, cause: dict[str, str], effect: dict[str, str]
) -> None:
    assert inhibited(running_alertmanager, cause, effect)


@pytest.mark.parametrize(
    ("cause", "effect"),
    [
        (alert("CdcMergeDown"), alert("CdcMergeWatchdog", "none")),
        (alert("CdcMergeSourceDown", source="crm"), alert("CdcMergeSourceBehind", "warning", source="erp")),
        (alert("CdcMergeSourceDown", source="crm"), alert("CdcMergeSlotInactive", "warning", source="crm")),
        (alert("CdcMergeSlotLost", source="erp"), alert("CdcMergePositionGapDetected", source="crm", kind="slot_lost")),
        (alert("CdcMergeSlotLost", source="crm"), finding("CAP04")),
        (alert("CdcMergeSlotUnreserved", source="crm"), finding("SLT07")),
        (alert("CdcMergeSlotLost", source="erp"), finding("SLT04")),
        (alert("CdcMergeSourceRefused", source="crm"), alert("CdcMergePublicationDrift", "warning", source="crm")),
        (alert("CdcMergeConflictStorm", entity="order"), alert("CdcMergeConflictSpike", "warning", entity="customer")),
        (
            alert("CdcMergeConflictUnanswered", entity="order"),
            alert("CdcMergeConflictUnanswered", "warning", entity="customer"),
        ),
    ],
)
def test_an_alert_for_another_team_is_not_inhibited(
    running_alertmanager: str, cause: dict[str, str], effect: dict[str, str]
) -> None:
    assert not inhibited(running_alertmanager, cause, effect)
