"""A log as a machine reads it: one JSON object a line, in the names of the Elastic Common Schema."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

ALWAYS: Final = {"@timestamp", "log.level", "event.code", "message", "log.logger", "service.name", "ecs.version"}
# https://www.elastic.co/guide/en/ecs/8.11: what a line may have beside what is ours.
ECS: Final = {*ALWAYS, "error.type", "error.stack_trace"}


def parsed_lines(log: str) -> list[Mapping[str, Any]]:
    """Every line, and that it is one: JSON, in the names of ECS or below ours."""
    lines = [json.loads(line) for line in log.splitlines()]
    for line in lines:
        assert line.keys() >= ALWAYS
        assert {name for name in line if not name.startswith("cdc_merge.")} <= ECS
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["@timestamp"])
        assert line["log.level"] in {"debug", "info", "warning", "error", "critical"}
        assert line["service.name"] == "cdc-merge"
    return lines
