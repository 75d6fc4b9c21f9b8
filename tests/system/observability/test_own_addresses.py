"""The one-liners of docs/observability.md that put one's own addresses in: run as they stand there, on a copy."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.alerting import ROOT, parsed, program

LINES = re.findall(r"^ *(sed -i .+)$", (ROOT / "docs" / "observability.md").read_text(encoding="utf-8"), re.M)
TOUCHED = ("deploy/prometheus/rules", "deploy/alertmanager", "grafana/dashboards")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for folder in TOUCHED:
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for line in LINES:
        subprocess.run(["sh", "-euc", line], cwd=tmp_path, check=True)
    return tmp_path


def test_runbooks_lead_to_where_they_are_published(copy: Path) -> None:
    assert len(LINES) == 3
    rules = [
        rule for group in parsed(copy / "deploy/prometheus/rules/alerts.yaml")["groups"] for rule in group["rules"]
    ]
    urls = {rule["annotations"]["runbook_url"] for rule in rules}
    assert all(re.fullmatch(r"https://wiki\.example/runbooks/CdcMerge\w+\.md", url) for url in urls)
    boards = [file.read_text(encoding="utf-8") for file in (copy / "grafana/dashboards").glob("*.json")]
    assert all('"https://wiki.example/runbooks/"' in board for board in boards)
    promtool = program("promtool", "prometheus")
    subprocess.run([promtool, "check", "rules", copy / "deploy/prometheus/rules/alerts.yaml"], check=True)


def test_the_console_is_where_people_reach_it(copy: Path) -> None:
    rules = [
        rule for group in parsed(copy / "deploy/prometheus/rules/alerts.yaml")["groups"] for rule in group["rules"]
    ]
    urls = [rule["annotations"]["console_url"] for rule in rules if "console_url" in rule["annotations"]]
    assert len(urls) > 20
    assert all(url.startswith("https://cdc-merge.example/") for url in urls)


def test_receivers_post_to_one_s_own_webhook(copy: Path) -> None:
    file = copy / "deploy/alertmanager/alertmanager.yml"
    hooks = [hook["url"] for each in parsed(file)["receivers"] for hook in each["webhook_configs"]]
    assert len(hooks) == 6
    assert all(url.startswith("https://hooks.example/cdc-merge/") for url in hooks)
    subprocess.run([program("amtool", "prometheus-alertmanager"), "check-config", file], check=True)


def test_without_them_every_runbook_is_a_page_of_this_repository() -> None:
    rules = [
        rule for group in parsed(ROOT / "deploy/prometheus/rules/alerts.yaml")["groups"] for rule in group["rules"]
    ]
    assert all((ROOT / rule["annotations"]["runbook_url"]).is_file() for rule in rules)
