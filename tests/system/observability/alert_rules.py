"""The alerting rules as shipped."""

from __future__ import annotations

from tests.support.alerting import RULES, Parsed, parsed


def rules(file: str) -> list[Parsed]:
    return [rule for group in parsed(RULES / file)["groups"] for rule in group["rules"]]


ALERTS = rules("alerts.yaml")
NAMES = sorted({rule["alert"] for rule in ALERTS})
