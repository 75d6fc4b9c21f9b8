"""The tables of metrics and alerts in docs/observability.md: `python -m tests.system.observability.tables` writes them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

from tests.support.alerting import ROOT, RULES, parsed
from tests.system.observability.vocabulary import described

PAGE = ROOT / "docs" / "observability.md"
METRICS = "| metric | type | labels | meaning |\n|---|---|---|---|\n"
ALERTS = "| alert | severity | team | |\n|---|---|---|---|\n"
TABLE_ROWS = r"(?:\|.*\n)*"


def metric_rows() -> Iterator[str]:
    for metric in described():
        if metric.name.startswith("cdc_merge_"):
            labels = ", ".join(metric.labels)
            yield f"| `{metric.name}` | {metric.type} | {labels} | {metric.help} |\n"


def alert_rows() -> Iterator[str]:
    rules = [rule for group in parsed(RULES / "alerts.yaml")["groups"] for rule in group["rules"]]
    for name in dict.fromkeys(rule["alert"] for rule in rules):
        degrees = [rule for rule in rules if rule["alert"] == name]
        severities = ", ".join(dict.fromkeys(rule["labels"]["severity"] for rule in degrees))
        team, summary = degrees[0]["labels"]["team"], degrees[0]["annotations"]["summary"]
        yield f"| [{name}](runbooks/{name}.md) | {severities} | {team} | {summary} |\n"


def written(text: str) -> str:
    """The page with both tables as they are to be."""
    for head, rows in ((METRICS, metric_rows()), (ALERTS, alert_rows())):
        before, _, after = text.partition(head)
        assert after, head
        text = before + head + "".join(rows) + re.sub(f"^{TABLE_ROWS}", "", after)
    return text


if __name__ == "__main__":
    before = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(written(before), encoding="utf-8")
    sys.exit(0)
