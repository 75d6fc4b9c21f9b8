"""The pages of the runbooks, and the commands that they quote."""

from __future__ import annotations

import re

from tests.support.alerting import ROOT

PAGES = sorted((ROOT / "docs" / "runbooks").glob("*.md"))


def commands(text: str) -> list[str]:
    """Each `cdc-merge …` of a page: lines of code blocks, and code within a sentence."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S))
    return [line for line in (*lines, *inline) if line.startswith("cdc-merge ")]
