"""Sidecar processes without the wait for imports: a program that has imported everything and forks one per request.

Each line on stdin is a JSON object: `{"run": CONFIG, "log": FILE, "whole": BOOL}` starts a sidecar with its output in
FILE and answers its pid: `cdc-merge --config CONFIG run` as it is, readers in processes of their own, if `whole`, else
the same with readers that are threads, which takes a tenth of the time. `{"end": PID, "signal": NUMBER}` sends the
signal, waits for the end and answers the wait status; `{"look": PID}` answers whether it runs. When stdin ends, as it
does when the tests die, all are killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

_running: set[int] = set()


def _start(request: Mapping[str, Any]) -> int:
    pid = os.fork()
    if pid == 0:
        _become(request)
    _running.add(pid)
    return pid


def _become(request: Mapping[str, Any]) -> NoReturn:
    os.setsid()
    target = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, descriptor in ((nothing, 0), (target, 1), (target, 2)):
        os.dup2(source, descriptor)
    code = 70
    try:
        code = (_run if request["whole"] else _run_in_threads)(request["run"])
    finally:
        sys.stderr.flush()
        os._exit(code)


def _run(config: str) -> int:
    from cdc_merge.cli.main import run  # noqa: PLC0415 - see `main`

    return run(["--config", config, "run"])


def _run_in_threads(config: str) -> int:
    from cdc_merge.app import Sidecar  # noqa: PLC0415 - see `main`
    from cdc_merge.config import load  # noqa: PLC0415 - see `main`

    sidecar = Sidecar(load(Path(config), os.environ))
    sidecar.start()
    print(f"cdc-merge listens on http://{sidecar.address}", file=sys.stderr, flush=True)
    sidecar.wait()
    return 0


def _end(request: Mapping[str, Any]) -> int:
    pid = request["end"]
    if pid not in _running:
        return 0
    _running.discard(pid)
    os.kill(pid, request["signal"])
    return os.waitpid(pid, 0)[1]


def _look(request: Mapping[str, Any]) -> bool:
    pid = request["look"]
    if pid in _running and os.waitpid(pid, os.WNOHANG)[0] == pid:
        _running.discard(pid)
    return pid in _running


ANSWERS: Mapping[str, Callable[[Mapping[str, Any]], object]] = {"run": _start, "end": _end, "look": _look}


def main() -> None:
    # Imported once for all children; not above, because the readers that a sidecar spawns import this file again.
    from cdc_merge import app  # noqa: F401, PLC0415
    from cdc_merge.cli import run  # noqa: F401, PLC0415

    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(ANSWERS[next(iter(request))](request)), flush=True)
    for pid in list(_running):
        _end({"end": pid, "signal": signal.SIGKILL})


if __name__ == "__main__":
    main()
