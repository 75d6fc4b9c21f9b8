"""What every test that starts processes relies on: they are the command itself, and nothing of them outlives the tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.process_pool import ROOT, ProcessPool

MAPPED = {"table": "customer", "key": "no", "fields": {"phone": "phone"}}
BEGUN_BY_TESTS_THAT_DIE = """
import sys
from pathlib import Path
from tests.support.process_pool import ProcessPool

pool = ProcessPool()
log = Path(sys.argv[2])
print(pool.start(["--config", sys.argv[1], "run"], log, log).pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A sidecar that waits for its server."""
    document = {
        "store": f"sqlite://{tmp_path}/state.db",
        "http": {"listen": "127.0.0.1:0"},
        "sources": {"shop": {"type": "postgres", "dsn": "host=/nowhere"}},
        "entities": {"customer": {"from": {"shop": MAPPED}}},
    }
    file = tmp_path / "cdc-merge.yaml"
    file.write_text(json.dumps(document))
    return file


def wait_until(fact: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 30
    while not fact():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def is_there(pid: int) -> bool:
    """Zombies count."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_command_line_ends_with_its_code_and_its_two_outputs(
    process_pool: ProcessPool, config: Path, tmp_path: Path
) -> None:
    shown = process_pool.run_to_end(["--config", str(config), "check-config", "--offline"], tmp_path)
    assert (shown.returncode, shown.stdout[:8], shown.stderr) == (0, "customer", "")
    slip = process_pool.run_to_end(["nothing"], tmp_path)
    assert (slip.returncode, slip.stdout) == (2, "")
    assert "Usage: cdc-merge" in slip.stderr


def test_a_command_line_has_its_own_environment_and_the_tests_directory(
    process_pool: ProcessPool, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(config.parent)
    words = ["check-config", "--offline"]
    assert process_pool.run_to_end(words, config.parent).returncode == 0
    assert process_pool.run_to_end(words, config.parent, {"CDC_MERGE_CONFIG": "another.yaml"}).returncode == 78
    assert process_pool.run_to_end(words, config.parent).returncode == 0


def test_a_sidecar_leads_its_process_group_and_ends_by_sigterm_or_sigkill(
    process_pool: ProcessPool, config: Path
) -> None:
    log = config.with_suffix(".log")
    for number, code in ((signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)):
        log.write_text("")
        sidecar = process_pool.start(["--config", str(config), "run"], log, log)
        wait_until(lambda: "listens on" in log.read_text(), "it listens")
        assert sidecar.poll() is None
        assert os.getpgid(sidecar.pid) == sidecar.pid
        assert sidecar.end(number) == code
        assert not is_there(sidecar.pid)


def test_tests_that_are_killed_with_their_whole_group_leave_no_process(config: Path) -> None:
    log = config.with_suffix(".log")
    command = [sys.executable, "-c", BEGUN_BY_TESTS_THAT_DIE, str(config), str(log)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT, start_new_session=True) as tests:
        assert tests.stdout is not None
        sidecar = int(tests.stdout.readline())
        wait_until(lambda: "listens on" in log.read_text(), "it listens")
        assert is_there(sidecar)
        os.killpg(tests.pid, signal.SIGKILL)
    wait_until(lambda: not is_there(sidecar), "it ended")
