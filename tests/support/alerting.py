"""Real Prometheus, real Alertmanager, a receiver on the loopback: each on a free port, for the length of a block."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest
from ruamel.yaml import YAML

ROOT: Final = Path(__file__).parents[2]
RULES: Final = ROOT / "deploy" / "prometheus" / "rules"
START_LIMIT_S: Final = 60.0
LOOK_EVERY_S: Final = 0.05
TOKEN: Final = "s3cret"  # of a sidecar with configured access; other servers ignore it
Parsed = Any  # JSON and YAML as they come


def parsed(path: Path) -> Parsed:
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


def program(name: str, package: str) -> str:
    """The path of a program; the test is skipped, saying what to install, when it is not here."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install {package}")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(fact: Callable[[], object], what: str, limit_s: float = START_LIMIT_S) -> None:
    """Until the fact holds; AssertionError says what was waited for."""
    deadline = time.monotonic() + limit_s
    while not fact():
        assert time.monotonic() < deadline, f"not within {limit_s:g} s: {what}"
        time.sleep(LOOK_EVERY_S)


def fetched(url: str, body: object = None) -> Parsed:
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    request.add_header("Authorization", f"Bearer {TOKEN}")
    with urllib.request.urlopen(request, timeout=10) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"}), timeout=5
        ):
            return True
    except OSError:
        return False


@contextmanager
def running(command: Sequence[str], ready: str, log: Path) -> Iterator[None]:
    """A server for the length of the block, from when `ready` answers."""
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:

            def is_ready() -> bool:
                assert process.poll() is None, log.read_text()[-2000:]
                return answers(ready)

            wait_until(is_ready, f"{command[0]} is ready")
            yield
        finally:
            process.terminate()
            process.wait(20)


@contextmanager
def prometheus(directory: Path, config: Mapping[str, object]) -> Iterator[str]:
    """Prometheus with this configuration; its address."""
    command = program("prometheus", "prometheus")
    directory.mkdir()
    file, address = directory / "prometheus.yml", f"http://127.0.0.1:{free_port()}"
    file.write_text(json.dumps(config))
    arguments = (
        f"--config.file={file}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address={address.removeprefix('http://')}",
        "--rules.alert.resend-delay=1s",
        "--rules.alert.for-grace-period=0s",
        "--rules.alert.for-outage-tolerance=0s",
    )
    with running([command, *arguments], f"{address}/-/ready", directory / "log"):
        yield address


@contextmanager
def alertmanager(directory: Path, config: Mapping[str, object]) -> Iterator[str]:
    """Alertmanager with this configuration; its address."""
    command = program("prometheus-alertmanager", "prometheus-alertmanager")
    directory.mkdir()
    file, address = directory / "alertmanager.yml", f"http://127.0.0.1:{free_port()}"
    file.write_text(json.dumps(config))
    arguments = (
        f"--config.file={file}",
        f"--storage.path={directory / 'data'}",
        f"--web.listen-address={address.removeprefix('http://')}",
        # Empty: no gossip with others, on no address of this machine.
        "--cluster.listen-address=",
    )
    with running([command, *arguments], f"{address}/-/ready", directory / "log"):
        yield address


class Receiver:
    """Keeps what Alertmanager posts: (receiver, alert), one entry for each alert of each notification."""

    def __init__(self) -> None:
        self.notifications: list[tuple[str, Parsed]] = []
        notifications = self.notifications

        class Posts(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                notifications.extend((self.path.removeprefix("/"), alert) for alert in body["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class's name
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Posts)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def find(self, name: str, status: str = "firing", **labels: str) -> tuple[str, Parsed] | None:
        """The last such notification."""
        wanted = {"alertname": name, **labels}
        for receiver, alert in reversed(self.notifications):
            if alert["status"] == status and wanted.items() <= alert["labels"].items():
                return receiver, alert
        return None


def quick_alertmanager(receiver: str) -> Mapping[str, object]:
    """The shipped configuration, posting to the test's receiver without waiting first."""
    config: Parsed = parsed(ROOT / "deploy" / "alertmanager" / "alertmanager.yml")
    for route in (config["route"], *config["route"]["routes"]):
        route |= {"group_wait": "0s", "group_interval": "1s"}
    for each in config["receivers"]:
        each["webhook_configs"] = [{**hook, "url": f"{receiver}/{each['name']}"} for hook in each["webhook_configs"]]
    shown: Mapping[str, object] = config
    return shown


def queried(address: str, expression: str) -> list[Parsed]:
    """The series that an instant query finds."""
    found = fetched(f"{address}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
    assert found["status"] == "success", found
    series: list[Parsed] = found["data"]["result"]
    return series
