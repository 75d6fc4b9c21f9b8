"""Every command of every runbook is run: our own against a watched shop, SQL at its server, addresses at real servers.

What a person has to fill in (ID, NAME …) is filled in. Other programs of the host are only listed.
"""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from cdc_merge.app.sidecar import Sidecar
from cdc_merge.cli.main import run
from cdc_merge.demo.servers import DemoServer
from tests.support.alerting import (
    ROOT,
    Receiver,
    alertmanager,
    answers,
    free_port,
    parsed,
    program,
    prometheus,
    quick_alertmanager,
)
from tests.support.process_pool import ProcessPool
from tests.support.shop import TOKEN, Shop, running_sidecar, shop, watching_sidecar
from tests.system.observability.alert_rules import ALERTS
from tests.system.observability.runbook_pages import PAGES, commands

HOST: Final = {"timedatectl", "chronyc", "journalctl", "du", "fuser", "lsof"}
FILLED: Final = {"ENTITY": "customer", "KEY": "C001", "FIELD": "phone", "NAME": "crm", "TABLE": "public.customer"}
PROBLEMS_FOUND: Final = 4
# Lines that change something come after those that look, in this order; the last two want a sidecar that has stopped.
EFFECTS: Final = ("source pause", "source resume", "source resync", "run", "source drop-slot")
STOPPED_FROM: Final = EFFECTS.index("run") + 1


def written() -> list[str]:
    """Each command line of the runbooks once: all of the code blocks, and ours of the sentences."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        found += [line for block in re.findall(r"```sh\n(.*?)```", text, re.S) for line in block.splitlines()]
        found += commands(text)
    return sorted(set(found), key=lambda line: (rank(line), line))


def in_alerts() -> list[str]:
    """What an alert has for pasting, for a conflict of this shop."""
    found = [rule["annotations"]["command"] for rule in ALERTS if "command" in rule["annotations"]]
    return [
        re.sub(r"--severity \w+", "--severity medium", line.replace("{{ $labels.entity }}", "ENTITY")) for line in found
    ]


def rank(line: str) -> int:
    matching = [place for place, effect in enumerate(EFFECTS, 1) if line.startswith(f"cdc-merge {effect}")]
    return matching[0] if matching else 0


class Desk(NamedTuple):
    """Where the person who was paged sits: beside the configuration, with the servers behind."""

    place: Shop
    sidecar: Sidecar
    conflict: str
    addresses: Mapping[str, str]
    """What a runbook names, and where it is in this test."""
    process_pool: ProcessPool

    def filled(self, line: str) -> str:
        for name, value in {**FILLED, "ID": self.conflict}.items():
            line = re.sub(rf"\b{name}\b", value, line)
        return line


def ours(desk: Desk, words: list[str]) -> None:
    code = run(["--config", str(desk.place.file), *words])
    assert code == 0 or (words[0] == "doctor" and code == PROBLEMS_FOUND), words


def at_the_server(desk: Desk, words: list[str]) -> None:
    flag, statement = words
    assert flag == "-c"
    desk.place.execute("crm", statement)


def fetched_from(desk: Desk, words: list[str]) -> None:
    flag, url = words
    assert flag == "-s"
    (found,) = [url.replace(named, real) for named, real in desk.addresses.items() if url.startswith(named)]
    assert answers(found), url


def routed(desk: Desk, words: list[str]) -> None:  # noqa: ARG001 - one shape for the table
    program("amtool", "prometheus-alertmanager")
    subprocess.run(["amtool", *words], cwd=ROOT, check=True, timeout=60)


WAYS: Final[Mapping[str, Callable[[Desk, list[str]], None]]] = {
    "cdc-merge": ours,
    "psql": at_the_server,
    "curl": fetched_from,
    "amtool": routed,
}


@pytest.fixture
def desk(
    new_server: Callable[..., DemoServer], process_pool: ProcessPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Desk]:
    monkeypatch.setenv("CDC_MERGE_TOKEN", TOKEN)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))  # dropping a slot needs a confirmation
    with ExitStack() as stack:
        receiver = Receiver()
        stack.callback(receiver.close)
        manager = stack.enter_context(alertmanager(tmp_path / "alertmanager", quick_alertmanager(receiver.address)))
        watching = stack.enter_context(prometheus(tmp_path / "prometheus", {}))
        place = stack.enter_context(shop(new_server(), tmp_path))
        for source in place.dsns:
            place.execute(source, "insert into customer values ('C001', 'same')")
        place.write(http={"listen": f"127.0.0.1:{free_port()}"})
        sidecar, address = stack.enter_context(watching_sidecar(place))
        addresses = {
            "http://127.0.0.1:8787": address,
            "http://127.0.0.1:9090": watching,
            "http://127.0.0.1:9093": manager,
        }
        yield Desk(place, sidecar, place.make_conflict(address, "C001")["id"], addresses, process_pool)


@pytest.mark.timeout(300)
def test_every_command_of_every_runbook_does_what_it_says(desk: Desk, capfd: pytest.CaptureFixture[str]) -> None:
    mine = [line for line in written() if shlex.split(line)[0] not in HOST]
    assert len(mine) > 50
    for line in dict.fromkeys(desk.filled(line) for line in (*in_alerts(), *mine)):
        if rank(line) >= STOPPED_FROM:
            desk.sidecar.stop()
        word, *words = shlex.split(line)
        if words[0] == "run":
            begun_and_ended(desk, words)
            continue
        WAYS[word](desk, words)
        output = capfd.readouterr()
        assert output.out or output.err or word != "cdc-merge", line
        assert "Traceback" not in output.err, line


def begun_and_ended(desk: Desk, words: list[str]) -> None:
    """A sidecar in a process of its own that answers, and ends on request."""
    log = desk.place.directory / "log"
    with running_sidecar(desk.process_pool, desk.place.file, log, *words[1:]) as process:
        assert answers(f"http://{parsed(desk.place.file)['http']['listen']}/-/healthy")
    assert process.poll() == 0


def test_everything_that_a_runbook_has_typed_is_run_or_known_as_a_program_of_the_host() -> None:
    assert {shlex.split(line)[0] for line in written()} <= HOST | set(WAYS)
