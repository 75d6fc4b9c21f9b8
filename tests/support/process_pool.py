"""Processes of cdc-merge without the wait for imports: a program that has imported everything and forks one per request.

Each line on stdin is a JSON object with a number, `{"number": N, …}`; each line on stdout is `[N, ANSWER]`:
- `{"command": [ARGUMENT…], …}` starts `cdc-merge ARGUMENT…` as it is: its pid.
- `{"status": PID}`: None while it runs, else its exit code, or minus the signal that ended it.
- `{"signal": PID, "is": NUMBER}` sends it, unless the process has ended.
What is started leads a session of its own and takes from the request its surroundings: `directory`, `environment`, and the
files `out` and `err` that it appends to. When stdin ends, as it does when the tests die, all are killed with their groups.
`ProcessPool` is the tests' side of it.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

LOOK_EVERY_S = 0.02
END_LIMIT_S = 60.0  # longer than the sidecar takes for an orderly end at its own limits
ROOT = Path(__file__).parents[2]
Request = Mapping[str, Any]

# ---------------------------------------------------------------- the tests' side


class ProcessPool:
    """Starts and ends `cdc-merge` processes; several threads may use it."""

    def __init__(self) -> None:
        environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
        pipe = subprocess.PIPE
        # A session of its own: an interrupt of the tests at a terminal does not reach it, so it can end what it started.
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=pipe,
            stdout=pipe,
            text=True,
            env=environment,
            cwd=ROOT,
            start_new_session=True,
        )
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)

    @property
    def pid(self) -> int:
        return self._process.pid

    def request(self, **request: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            number = next(self._numbers)
            self._process.stdin.write(json.dumps({**request, "number": number}) + "\n")
            self._process.stdin.flush()
            while True:
                answered, answer = json.loads(self._process.stdout.readline())
                if answered == number:  # else a test's time limit gave up that request
                    return answer

    def start(
        self, arguments: Sequence[str], out: Path, err: Path, environment: Mapping[str, str] | None = None
    ) -> ChildProcess:
        """Start `cdc-merge` with these arguments; its output is appended to the files. `environment` is added to the tests' own."""
        variables = {**os.environ, **(environment or {})}
        return self._fork(command=[*arguments], out=str(out), err=str(err), environment=variables)

    def run_to_end(
        self,
        arguments: Sequence[str],
        directory: Path,
        environment: Mapping[str, str] | None = None,
        limit_s: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run `cdc-merge` with these arguments to its end; its output goes through files of `directory`. TimeoutError."""
        number = next(self._numbers)
        files = directory / f"out-{self.pid}-{number}", directory / f"err-{self.pid}-{number}"
        code = self.start(arguments, *files, environment).wait(limit_s)
        out, err = (file.read_text() for file in files)
        return subprocess.CompletedProcess([*arguments], code, out, err)

    def _fork(self, **request: object) -> ChildProcess:
        return ChildProcess(self, self.request(**request, directory=os.getcwd()))

    def close(self) -> None:
        self._process.communicate()


class ChildProcess(NamedTuple):
    """A process of the pool."""

    process_pool: ProcessPool
    pid: int

    def poll(self) -> int | None:
        code: int | None = self.process_pool.request(status=self.pid)
        return code

    def send_signal(self, number: int) -> None:
        self.process_pool.request(**{"signal": self.pid, "is": number})

    def end(self, number: int) -> int:
        """Send the signal and wait for the end: its exit code. TimeoutError."""
        self.send_signal(number)
        return self.wait(END_LIMIT_S)

    def wait(self, limit_s: float) -> int:
        """Its exit code. TimeoutError, and the process is killed."""
        deadline = time.monotonic() + limit_s
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                self.send_signal(signal.SIGKILL)
                raise TimeoutError(f"not ended after {limit_s:g} s")
            time.sleep(LOOK_EVERY_S)
        return code


# ---------------------------------------------------------------- the program

_running: set[int] = set()
_ended: dict[int, int] = {}


def _start(request: Request) -> int:
    # Opened here: once the tests know the pid, the files are there.
    how = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    descriptors = [os.open(os.devnull, os.O_RDONLY), *(os.open(request[name], how, 0o644) for name in ("out", "err"))]
    pid = os.fork()
    if pid == 0:
        _become(request, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    _running.add(pid)
    return pid


def _become(request: Request, descriptors: Sequence[int]) -> NoReturn:
    code = 70
    try:
        os.setsid()
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.chdir(request["directory"])
        os.environ.clear()
        os.environ.update(request["environment"])
        code = _run(request["command"])
    except BaseException:  # noqa: BLE001 - a process must not go on as a second pool; what it says is in its file
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(arguments: Sequence[str]) -> int:
    from cdc_merge.cli.main import run  # noqa: PLC0415 - see `main`

    return run(arguments)


def _signal(request: Request) -> None:
    if request["signal"] in _running:
        os.kill(request["signal"], request["is"])


def _status(request: Request) -> int | None:
    return _ended.get(request["status"])


def _reap() -> None:
    while _running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        _running.discard(pid)
        _ended[pid] = os.waitstatus_to_exitcode(status)


ANSWERS: Mapping[str, Callable[[Request], object]] = {
    "command": _start,
    "signal": _signal,
    "status": _status,
}


def main() -> None:
    # Imported once for all children; not above, because tests import this file too.
    from cdc_merge.app import sidecar  # noqa: F401, PLC0415
    from cdc_merge.cli.main import COMMANDS, imported  # noqa: PLC0415

    for name in COMMANDS:
        imported(name)
    try:
        for line in sys.stdin:
            request = json.loads(line)
            _reap()
            print(json.dumps([request["number"], ANSWERS[next(iter(request))](request)]), flush=True)
    except BrokenPipeError:
        pass  # the tests died between a question and its answer
    finally:
        for pid in _running:
            os.kill(pid, signal.SIGKILL)  # it may be too young to have a group
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
