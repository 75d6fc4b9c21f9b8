"""`python -m bench [throughput] [detection] [large] [long-history] [--updates N] [--seconds N] … [--output json|table]`.

Without a name throughput and detection are run, in sizes that take about a minute; the full sizes are --updates 500000
--seconds 60.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Mapping
from typing import Final

from bench import detection, large, long_history, throughput

QUICK_UPDATES = 100_000
QUICK_SECONDS = 20
RATE_PER_S = 500
LARGE_ROWS = 1_000_000
LONG_WRITES = 100_000

BENCHES: Final[Mapping[str, Callable[[argparse.Namespace], dict[str, object]]]] = {
    "throughput": lambda wish: throughput.measure(wish.updates),
    "detection": lambda wish: detection.measure(wish.seconds, wish.rate),
    "large": lambda wish: large.measure(wish.rows),
    "long-history": lambda wish: long_history.measure(wish.writes),
}
QUICK: Final = ("throughput", "detection")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(BENCHES)}; without any, the first two")
    parser.add_argument("--updates", type=int, default=QUICK_UPDATES, help="rows of the backlog (throughput)")
    parser.add_argument("--seconds", type=int, default=QUICK_SECONDS, help="length of the load (detection)")
    parser.add_argument("--rate", type=int, default=RATE_PER_S, help="changes a second over all sources (detection)")
    parser.add_argument("--rows", type=int, default=LARGE_ROWS, help="rows of the one transaction (large)")
    parser.add_argument("--writes", type=int, default=LONG_WRITES, help="changes behind the long record (long-history)")
    parser.add_argument("--output", choices=["table", "json"], default="table")
    wish = parser.parse_args()
    names = wish.names or QUICK
    if unknown := set(names) - set(BENCHES):
        parser.error(f"there is no benchmark {sorted(unknown)[0]}")
    result: dict[str, object] = {"machine": machine()}
    result |= {name: measure(wish) for name, measure in BENCHES.items() if name in names}
    print(json.dumps(result, indent=2) if wish.output == "json" else table(result))


def machine() -> dict[str, object]:
    return {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}


def table(result: dict[str, object]) -> str:
    lines = []
    for name, figures in result.items():
        assert isinstance(figures, dict)
        lines.append(name)
        lines += (f"  {figure:32} {shown(value)}" for figure, value in figures.items())
    return "\n".join(lines)


def shown(value: object) -> str:
    if isinstance(value, list):
        return " ".join(str(each) for each in value)
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    main()
