"""Write every dashboard, or only say which differ: `python -m grafana [--check]`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from grafana import conflicts, decisions, overview, pipeline, sources
from grafana.drawing import json_of

DIRECTORY: Final = Path(__file__).parent / "dashboards"
DASHBOARDS: Final = (overview.BOARD, conflicts.BOARD, sources.BOARD, pipeline.BOARD, decisions.BOARD)


def drawn() -> Iterator[tuple[Path, str]]:
    """Each file and what is to be in it."""
    for board in DASHBOARDS:
        yield DIRECTORY / f"{board.uid}.json", json_of(board)


def is_as_drawn(file: Path, text: str) -> bool:
    return file.exists() and file.read_text(encoding="utf-8") == text


def main(arguments: list[str]) -> int:
    """1 when `--check` finds a difference."""
    differing = [(file, text) for file, text in drawn() if not is_as_drawn(file, text)]
    for file, text in differing:
        sys.stdout.write(f"{file}\n")
        if "--check" not in arguments:
            file.write_text(text, encoding="utf-8")
    return int(bool(differing) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
