"""Processes of cdc-merge without the wait for imports: a program that has imported everything and forks one per request.

Each line on stdin is a JSON object, each line on stdout the answer:
- `{"threads": CONFIG, "out": FILE, "err": FILE}` starts a sidecar whose readers are threads, in a tenth of the time of a
  whole one: its pid.
- `{"command": [ARGUMENT…], "out": FILE, "err": FILE, "env": {…}}` starts `cdc-merge ARGUMENT…` as it is: its pid.
- `{"status": PID}`: None while it runs, else its exit code, or minus the signal that ended it.
- `{"end": PID, "signal": NUMBER}` sends the signal, waits for the end: the same.
- `{"signal": PID, "number": NUMBER}` sends it.
When stdin ends, as it does when the tests die, all are killed. `Nursery` is the tests' side of it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

LOOK_EVERY_S = 0.02
ROOT = Path(__file__).parents[1]
Request = Mapping[str, Any]

# ---------------------------------------------------------------- the tests' side


class Nursery:
    """The program, asked over its pipes; by several threads too."""

    def __init__(self) -> None:
        environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
        pipe = subprocess.PIPE
        command = [sys.executable, __file__]
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment, cwd=ROOT)
        self._asking = threading.Lock()

    def ask(self, **request: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._asking:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())

    def start(
        self, arguments: Sequence[str], out: Path, err: Path, environment: Mapping[str, str] | None = None
    ) -> Forked:
        """`cdc-merge` with these arguments; what it says is appended to the files. `environment` is added to the tests' own."""
        told = {**os.environ, **(environment or {})}
        return Forked(self, self.ask(command=[*arguments], out=str(out), err=str(err), env=told))

    def threads(self, config: Path, log: Path) -> Forked:
        """A sidecar whose readers are threads."""
        return Forked(self, self.ask(threads=str(config), out=str(log), err=str(log), env=dict(os.environ)))

    def ran(
        self,
        arguments: Sequence[str],
        directory: Path,
        environment: Mapping[str, str] | None = None,
        limit_s: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """`cdc-merge` with these arguments, once it has ended. TimeoutError."""
        files = directory / f"out{time.monotonic_ns()}", directory / f"err{time.monotonic_ns()}"
        code = self.start(arguments, *files, environment).wait(limit_s)
        out, err = (file.read_text() for file in files)
        return subprocess.CompletedProcess([*arguments], code, out, err)

    def close(self) -> None:
        self._process.communicate()


class Forked(NamedTuple):
    """A process of the nursery."""

    nursery: Nursery
    pid: int

    def poll(self) -> int | None:
        code: int | None = self.nursery.ask(status=self.pid)
        return code

    def send_signal(self, number: int) -> None:
        self.nursery.ask(signal=self.pid, number=number)

    def end(self, number: int) -> int | None:
        """Send the signal and wait for the end, however long it takes."""
        code: int | None = self.nursery.ask(end=self.pid, signal=number)
        return code

    def wait(self, limit_s: float) -> int:
        """Its exit code. TimeoutError, and the process is killed."""
        deadline = time.monotonic() + limit_s
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                self.end(signal.SIGKILL)
                raise TimeoutError(f"not ended after {limit_s:g} s")
            time.sleep(LOOK_EVERY_S)
        return code


# ---------------------------------------------------------------- the program

_running: set[int] = set()
_ended: dict[int, int] = {}


def _start(request: Request) -> int:
    pid = os.fork()
    if pid == 0:
        _become(request)
    _running.add(pid)
    return pid


def _become(request: Request) -> NoReturn:
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    out, err = (os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) for name in ("out", "err"))
    for source, descriptor in ((nothing, 0), (out, 1), (err, 2)):
        os.dup2(source, descriptor)
    os.environ.clear()
    os.environ.update(request["env"])
    code = 70
    try:
        code = _run_in_threads(request["threads"]) if "threads" in request else _run(request["command"])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(arguments: Sequence[str]) -> int:
    from cdc_merge.cli.main import run  # noqa: PLC0415 - see `main`

    return run(arguments)


def _run_in_threads(config: str) -> int:
    from cdc_merge.app import Sidecar  # noqa: PLC0415 - see `main`
    from cdc_merge.config import load  # noqa: PLC0415 - see `main`

    sidecar = Sidecar(load(Path(config), os.environ))
    sidecar.start()
    print(f"cdc-merge listens on http://{sidecar.address}", file=sys.stderr, flush=True)
    sidecar.wait()
    return 0


def _end(request: Request) -> int | None:
    pid = request["end"]
    if pid in _running:
        os.kill(pid, request["signal"])
        _note(pid, os.waitpid(pid, 0)[1])
    return _ended.get(pid)


def _signal(request: Request) -> None:
    if request["signal"] in _running:
        os.kill(request["signal"], request["number"])


def _status(request: Request) -> int | None:
    pid = request["status"]
    if pid in _running:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended == pid:
            _note(pid, status)
    return _ended.get(pid)


def _note(pid: int, status: int) -> None:
    _running.discard(pid)
    _ended[pid] = os.waitstatus_to_exitcode(status)


ANSWERS: Mapping[str, Callable[[Request], object]] = {
    "threads": _start,
    "command": _start,
    "end": _end,
    "signal": _signal,
    "status": _status,
}


def main() -> None:
    # Imported once for all children; not above, because tests import this file too.
    from cdc_merge import app  # noqa: F401, PLC0415
    from cdc_merge.cli import main as _  # noqa: F401, PLC0415

    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(ANSWERS[next(iter(request))](request)), flush=True)
    for pid in list(_running):
        _end({"end": pid, "signal": signal.SIGKILL})


if __name__ == "__main__":
    main()
