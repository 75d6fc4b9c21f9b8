"""A sidecar over two databases, driven over HTTP as operators do; it can be killed and started again."""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict

from tests.support.process_pool import ChildProcess, ProcessPool
from tests.system.postgres.reading import run, wait_for

TOKEN = "t0ken"
LIMIT_S = 90.0
TABLE = "CREATE TABLE customer (no text PRIMARY KEY, name text, phone text, points int, note text)"
PUBLICATION = "CREATE PUBLICATION cdc_merge FOR TABLE customer"
FIELDS = {"name": "lww", "phone": "mv", "points": "counter"}
Document = dict[str, Any]


class DrivenSidecar:
    """`dsns` maps source → connection string. `settings` are keys of a source's own part of the configuration."""

    def __init__(self, process_pool: ProcessPool, directory: Path, dsns: Mapping[str, str], **settings: Any) -> None:
        self._process_pool = process_pool
        self.directory = directory
        self.dsns = dsns
        self.config = directory / "cdc-merge.yaml"
        (directory / "tokens").write_text(f"{TOKEN} wang\nv1ewer looker\n")
        self._settings = settings
        self.entities: dict[str, Any] = {
            "customer": {
                "from": {
                    name: {"table": "public.customer", "key": "no", "fields": {field: field for field in FIELDS}}
                    for name in dsns
                },
                "fields": {name: {"merge": merge} for name, merge in FIELDS.items()},
            }
        }
        self._process: ChildProcess | None = None
        self._address: str | None = None

    # ---------------------------------------------------------------- its life

    def write_config(self) -> None:
        document = {
            "store": f"sqlite://{self.directory}/state.db",
            "http": {"listen": "127.0.0.1:0"},
            "settle": "200ms",
            "sources": {
                name: {"type": "postgres", "dsn": dsn, "slot": f"s_{self._number(dsn)}"} | self._settings
                for name, dsn in self.dsns.items()
            },
            "entities": self.entities,
            "access": {"tokens_file": str(self.directory / "tokens"), "roles": {"dba": ["wang"], "viewer": ["looker"]}},
        }
        self.config.write_text(json.dumps(document))

    @staticmethod
    def _number(dsn: str) -> str:
        return str(conninfo_to_dict(dsn)["dbname"])

    def slot(self, source: str) -> str:
        return f"s_{self._number(self.dsns[source])}"

    def start(self) -> DrivenSidecar:
        self.write_config()
        log = self.directory / "log"
        log.touch()
        read = log.stat().st_size
        self._process = self._process_pool.start(["--config", str(self.config), "run"], log, log)

        def listening_address() -> str | None:
            assert self._process is not None
            lines = log.read_text()[read:].splitlines()
            assert self._process.poll() is None, "\n".join(lines[-20:])
            found = [line for line in lines if "listens on http://" in line]
            return found[0].rpartition("http://")[2].split("/")[0].split('"')[0].strip() if found else None

        self._address = wait_for(listening_address, "the sidecar listened", LIMIT_S)
        return self

    def end(self, number: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)
            self._process = None

    def kill(self) -> None:
        self.end(signal.SIGKILL)

    def __enter__(self) -> DrivenSidecar:
        return self

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGKILL)

    # ---------------------------------------------------------------- asking and telling

    def get(self, path: str) -> Document:
        document: Document = json.loads(self._read(path))
        return document

    def metrics(self) -> str:
        return self._read("/metrics")

    def _read(self, path: str) -> str:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        request = urllib.request.Request(f"http://{self._address}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return str(answer.read().decode())

    def post(self, path: str, body: Document | None = None, *, token: str | None = TOKEN) -> tuple[int, Document]:
        """The status and the document of the answer."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        data = json.dumps(body or {}).encode()
        request = urllib.request.Request(f"http://{self._address}{path}", data=data, headers=headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=90) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def posted(self, path: str, body: Document | None = None) -> Document:
        status, document = self.post(path, body)
        assert status == 200, document
        return document

    def cli(self, *arguments: str, token: str | None = TOKEN) -> subprocess.CompletedProcess[str]:
        """A command against the sidecar that runs, which the file on disk must name."""
        text = self.config.read_text().replace("127.0.0.1:0", self._address or "127.0.0.1:9")
        live = self.directory / "live.yaml"
        live.write_text(text)
        environment = {"CDC_MERGE_TOKEN": token} if token else None
        return self._process_pool.run_to_end(["--config", str(live), *arguments], self.directory, environment)

    def source(self, name: str) -> Document:
        return next(each for each in self.get("/api/v1/sources")["items"] if each["name"] == name)

    def record(self, key: str) -> Document:
        return self.get(f"/api/v1/records/customer/{key}")

    def merged(self, key: str) -> Document:
        merged: Document = self.record(key)["merged"]
        return merged

    def held(self, key: str, source: str) -> Document:
        held: Document = self.record(key)["sources"][source]["values"]
        return held

    def open_conflicts(self) -> list[Document]:
        items: list[Document] = self.get("/api/v1/conflicts?status=open&limit=1000")["items"]
        return items + list(self.get("/api/v1/conflicts?status=settling&limit=1000")["items"])

    def until(self, fact: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> Any:
        def look() -> Any:
            assert self._process is not None
            assert self._process.poll() is None, (self.directory / "log").read_text()[-3000:]
            try:
                return fact()
            except urllib.error.HTTPError:
                return None

        return wait_for(look, what, limit_s)

    def until_state(self, source: str, state: str) -> None:
        self.until(lambda: self.source(source)["state"] == state, f"{source} was {state}")

    def until_level(self, *sources: str) -> None:
        """Everything that was committed at these sources is merged and on disk."""
        for source in sources or tuple(self.dsns):
            lsn = mark(self.dsns[source])
            self.until(partial(self._has_passed, source, lsn), f"{source} was level")

    def _has_passed(self, source: str, lsn: int) -> bool:
        return _lsn(self.source(source)["durable_lsn"]) >= lsn

    def until_resynced(self, source: str) -> None:
        self.until(lambda: not self.source(source)["resyncs"], f"{source} was read again")


def mark(dsn: str) -> int:
    """The LSN of a message committed now."""
    found = run(dsn, "SELECT (pg_logical_emit_message(true, 'cdc_merge.test', '') - '0/0')::bigint")
    return int(found[0][0])


def _lsn(text: str) -> int:
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) | int(low, 16)


def create_tables(dsns: Sequence[str], *statements: str) -> None:
    """The same table and publication in every database, then the statements."""
    for dsn in dsns:
        run(dsn, TABLE, PUBLICATION, *statements)


def in_the_database(dsn: str) -> dict[str, dict[str, object]]:
    columns = ", ".join(FIELDS)
    return {row[0]: dict(zip(FIELDS, row[1:], strict=True)) for row in run(dsn, f"SELECT no, {columns} FROM customer")}


def rows_at_source(sidecar: DrivenSidecar, source: str) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    cursor = ""
    while True:
        page = sidecar.get(f"/api/v1/records/customer?limit=500{cursor}")
        for record in page["items"]:
            view = record["sources"].get(source)
            if view is not None and view["presence"] == "present":
                found[record["key"]] = {name: _number(name, value) for name, value in view["values"].items()}
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


def _number(name: str, value: object) -> object:
    return int(str(value)) if name == "points" and value is not None else value


C1 = "INSERT INTO customer VALUES ('C1', 'n', '1', 10)"


def start_and_copy(sidecar: DrivenSidecar) -> DrivenSidecar:
    sidecar.start()
    for source in sidecar.dsns:
        sidecar.until_state(source, "streaming")
    sidecar.until_level()
    return sidecar
