"""The recording and alerting rules as shipped: they load, each fires and stays silent, and nothing is made up."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from cdc_merge.doctor.check_list import ALL_CHECKS
from tests.support.alerting import ROOT, RULES, Parsed, parsed, program
from tests.system.observability.alert_rules import ALERTS, NAMES, rules
from tests.system.observability.vocabulary import metric_names, recorded_names, selected_names

PROMETHEUS = RULES.parent
TESTS = sorted((PROMETHEUS / "tests").glob("*_test.yaml"))
SEVERITIES = {"critical", "warning", "info", "none"}
TEAMS = {"platform", "dba", "data"}


def promtool(*arguments: str | Path) -> None:
    command = [program("promtool", "prometheus"), *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=170)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_prometheus_takes_the_configuration_and_finds_no_rule_twice() -> None:
    promtool("check", "config", PROMETHEUS / "prometheus.yml")
    promtool("check", "rules", "--lint=all", "--lint-fatal", *sorted(RULES.glob("*.yaml")))


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_alerts_fire_and_stay_silent_as_their_tests_say(file: Path) -> None:
    promtool("test", "rules", file)


@pytest.mark.parametrize("name", NAMES)
def test_each_alert_is_shown_to_fire_and_to_stay_silent(name: str) -> None:
    shown = [
        [alert["exp_labels"] for alert in check.get("exp_alerts") or ()]
        for file in TESTS
        for test in parsed(file)["tests"]
        for check in test["alert_rule_test"]
        if check["alertname"] == name
    ]
    degrees = {rule["labels"]["severity"] for rule in ALERTS if rule["alert"] == name}
    assert {labels["severity"] for fired in shown for labels in fired} == degrees
    if name != "CdcMergeWatchdog":
        assert [] in shown, "nothing shows it silent"


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: f"{rule['alert']}-{rule['labels']['severity']}")
def test_each_alert_says_how_soon_who_what_and_where_to_read(rule: Parsed) -> None:
    labels, annotations = rule["labels"], rule["annotations"]
    assert labels["severity"] in SEVERITIES
    assert labels["team"] in TEAMS
    assert "{{" not in annotations["summary"]
    assert annotations["summary"].endswith(".")
    assert "{{" in annotations["description"] or rule["alert"] == "CdcMergeWatchdog"
    assert annotations["runbook_url"].endswith(f"/{rule['alert']}.md")
    assert (ROOT / "docs" / "runbooks" / f"{rule['alert']}.md").exists()
    assert "$labels.severity" not in str(annotations)
    assert not any(f"$labels.{name}" in str(annotations) for name in labels), "an alert's own labels are not in $labels"


def checks_of(rule: Parsed, operator: str = "=~?") -> set[str]:
    patterns = re.findall(rf'check{operator}"([^"]+)"', rule["expr"])
    return {code for pattern in patterns for code in pattern.split("|")}


def test_a_check_of_the_doctor_with_its_own_alert_fires_that_one_only() -> None:
    (rest,) = [rule for rule in ALERTS if rule["alert"] == "CdcMergeDoctorFinding"]
    covered = [checks_of(rule) for rule in ALERTS if rule is not rest]
    assert checks_of(rest, "!~") == set().union(*covered)
    assert checks_of(rest, "!~") <= {kind.code for kind in ALL_CHECKS}


@pytest.mark.parametrize("file", ["alerts.yaml", "recording.yaml"])
def test_rules_ask_only_for_metrics_that_exist(file: str) -> None:
    queried = {name for rule in rules(file) for name in selected_names(rule["expr"])}
    assert queried - metric_names() - recorded_names() == set()


def test_every_recorded_series_is_used_by_an_alert_or_a_dashboard() -> None:
    readers = [rule["expr"] for file in ("alerts.yaml", "recording.yaml") for rule in rules(file)]
    readers += [file.read_text() for file in (ROOT / "grafana" / "dashboards").glob("*.json")]
    readers += [(ROOT / "docs" / "observability.md").read_text()]
    assert [name for name in recorded_names() if not any(name in text for text in readers)] == []
