"""The whole sidecar behind failing networks, beside one that is not disturbed: in the end both say the same.

Two systems are edited at the same moments; the questions that this raises are part of what is compared.
"""

from __future__ import annotations

import json
import random
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest

from cdc_merge.app.sidecar import Sidecar
from cdc_merge.demo.servers import DemoServer
from tests.support.databases import fresh_database
from tests.system.faults.proxy import HEALTHY, Fault, Proxy, socket_of
from tests.system.faults.sidecars import SETUP, configured, held, in_table, sidecar, until_present, until_streaming
from tests.system.postgres.reading import run
from tests.system.scenarios.merged_state import MergedState, merged_state

SEED = 20261124
SYSTEMS = ("crm", "erp")
ROUNDS = 40
MOST_ROUNDS = 200


class Site(NamedTuple):
    """Two databases with the same rows, and a proxy before each."""

    dsns: Mapping[str, str]
    proxies: Mapping[str, Proxy]


@pytest.fixture
def site(postgres_server: DemoServer, second_server: DemoServer) -> Iterator[Site]:
    with ExitStack() as stack:
        servers = dict(zip(SYSTEMS, (postgres_server, second_server), strict=True))
        dsns = {name: stack.enter_context(fresh_database(server)) for name, server in servers.items()}
        for dsn in dsns.values():
            run(dsn, *SETUP, "INSERT INTO customer SELECT g, 'same', 0 FROM generate_series(1, 60) g")
        proxies = {name: stack.enter_context(Proxy(socket_of(server))) for name, server in servers.items()}
        yield Site(dsns, proxies)


def strike(proxy: Proxy, chance: random.Random) -> None:
    """One of the ways in which a network fails for a moment."""
    what = chance.randrange(5)
    if what == 0:
        proxy.cut(resets=chance.random() < 0.5, only=chance.choice([None, "plain", "stream"]))
    elif what == 1:
        proxy.set_next(Fault(cut_after=chance.randrange(50, 8000), resets=chance.random() < 0.5))
        proxy.cut(only="stream")
    elif what == 2:
        proxy.set(Fault(latency_s=0.01, chunk_bytes=chance.choice([100, 1000])))
    else:
        proxy.set(HEALTHY)


def edit(dsns: Mapping[str, str], round_number: int, chance: random.Random) -> None:
    """Both systems edit some of the same rows, in transactions that overlap."""
    connections = [psycopg.connect(dsn) for dsn in dsns.values()]
    for name, connection in zip(dsns, connections, strict=True):
        for _ in range(3):
            row = chance.randrange(1, 30)
            connection.execute("UPDATE customer SET points = points + 1 WHERE id = %s", [row])
            if chance.random() < 0.3:
                connection.execute("UPDATE customer SET name = %s WHERE id = %s", [f"{name} {round_number}", row])
        own = 1000 + round_number * 10 + len(name)
        connection.execute("INSERT INTO customer VALUES (%s, %s, 0)", [own, name])
    for connection in connections:
        connection.commit()
        connection.close()


def said(running: Sidecar) -> MergedState:
    def fetched(path: str) -> list[dict[str, object]]:
        found: list[dict[str, object]] = []
        cursor = ""
        while True:
            with urllib.request.urlopen(f"http://{running.address}{path}limit=500{cursor}", timeout=10) as answer:
                page = json.load(answer)
            found += page["items"]
            if page["next_cursor"] is None:
                return found
            cursor = f"&cursor={page['next_cursor']}"

    return merged_state(fetched("/api/v1/records/customer?"), fetched("/api/v1/conflicts?status=open&"))


@pytest.mark.timeout(170)
def test_a_sidecar_behind_failing_networks_ends_in_the_state_of_an_undisturbed_one(site: Site, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    through = {name: site.proxies[name].dsn(dsn) for name, dsn in site.dsns.items()}
    plain_file = configured(tmp_path / "plain.yaml", site.dsns)
    struck_file = configured(tmp_path / "struck.yaml", {name: f"{dsn} " for name, dsn in through.items()})
    document = json.loads(struck_file.read_text())
    for name, source in document["sources"].items():
        source["slot"] = f"struck_{name}"
    struck_file.write_text(json.dumps(document))
    with sidecar(plain_file) as plain, sidecar(struck_file) as struck:
        until_streaming(plain)
        until_streaming(struck)
        for number in range(MOST_ROUNDS):
            strike(site.proxies[chance.choice(SYSTEMS)], chance)
            edit(site.dsns, number, chance)
            # Edits may be quicker than a reader that waits before it connects again.
            if number >= ROUNDS and sum(status.reconnects for status in struck.statuses()) >= 3:
                break
            if number >= ROUNDS:
                time.sleep(0.2)
        for proxy in site.proxies.values():
            proxy.set(HEALTHY)
        for each in (plain, struck):
            until_present(each, site.dsns)
        assert sum(status.reconnects for status in struck.statuses()) >= 3
        expected = said(plain)
        assert said(struck).differences(expected) == []
        assert len(expected.open_conflicts) > 3, "a day without any question proves little"
        for name, dsn in site.dsns.items():
            assert held(struck, name) == in_table(dsn)
