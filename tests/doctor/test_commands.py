# ruff: noqa: E501 - SQL on one line
"""The commands for DBAs from outside: what they print, what they do, what they leave, and how they end."""

from __future__ import annotations

import io
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cdc_merge.app.sidecar import Sidecar
from cdc_merge.cli.main import run
from cdc_merge.config import load
from cdc_merge.doctor import guide, slot_lifecycle
from cdc_merge.doctor.check_list import ALL_CHECKS
from cdc_merge.doctor.grants import grants
from cdc_merge.doctor.source_facts import Subject
from cdc_merge.errors import SourceUnavailable
from tests.doctor.patient import Patient
from tests.system.postgres.reading import Reading, wait_for

ROOT = Path(__file__).parents[2]
FILE = """
store: sqlite://{directory}/state.db
http: {{ listen: "127.0.0.1:0" }}
sources:
  crm: {{ type: postgres, dsn: "{dsn}", slot: "{slot}" }}
entities:
  customer:
    from:
      crm: {{ table: app.customer, key: no, fields: {{ name: name, points: points }} }}
"""


class Desk:
    """Runs commands against one patient; `stdout` and `stderr` are the last command's."""

    def __init__(self, patient: Patient, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.patient = patient
        self._directory = directory
        self._capsys = capsys
        self.stdout = self.stderr = ""

    def __call__(self, *arguments: str, dsn: str | None = None) -> int:
        code = run(["--config", str(self.file(dsn)), *arguments])
        self.stdout, self.stderr = self._capsys.readouterr()
        assert "geheim" not in self.stdout + self.stderr
        return code

    def file(self, dsn: str | None = None) -> Path:
        file = self._directory / "cdc-merge.yaml"
        given = dsn or f"{self.patient.own_dsn} password=geheim"
        file.write_text(FILE.format(directory=self._directory, dsn=given, slot=self.patient.slot))
        return file

    def slots(self) -> int:
        return int(self.patient.sql("SELECT count(*) FROM pg_replication_slots")[0][0])


@pytest.fixture
def desk(patient: Patient, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(patient, tmp_path, capsys)


# ---------------------------------------------------------------- doctor


def test_a_healthy_source_ends_with_0_and_one_line_per_check(desk: Desk) -> None:
    assert desk("doctor") == 0
    codes = re.findall(r"^  ok       ([A-Z]{3}\d\d)  ", desk.stdout, re.MULTILINE)
    assert set(codes) == {kind.code for kind in ALL_CHECKS} - {"SLT12", "TAB07"}
    assert "0 failed, 0 unknown" in desk.stderr


def test_what_is_printed_with_sql_alone_fixes_everything(desk: Desk) -> None:
    desk.patient.sql(
        "DROP PUBLICATION cdc_merge",
        "ALTER TABLE app.customer DROP CONSTRAINT customer_pkey",
        "REVOKE SELECT ON app.customer FROM {role}",
        "ALTER ROLE {role} SET wal_sender_timeout = 0",
    )
    assert desk("doctor") == 4
    assert desk("doctor", "--sql") == 4
    script = desk.stdout
    # The identity comes before the publication: in between, the application's writes would fail.
    assert script.index("REPLICA IDENTITY") < script.index("CREATE PUBLICATION")
    psql(desk.patient, script)
    desk.patient.write()
    assert desk("doctor") == 0
    # A warning is left (identity full without a key), and strict counts it.
    assert desk("doctor", "--strict") == 4


def psql(patient: Patient, script: str, **variables: str) -> str:
    """Run a script as a DBA would."""
    program = patient.server.bin / "psql"
    if not program.exists():
        pytest.skip(f"{program} is not part of this installation")
    given = [word for name, value in variables.items() for word in ("-v", f"{name}={value}")]
    ended = subprocess.run(
        [str(program), "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", *given, "-d", patient.dsn],
        input=script,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_json_says_the_same_as_the_table(desk: Desk) -> None:
    desk.patient.sql("ALTER TABLE app.customer REPLICA IDENTITY NOTHING")
    assert desk("doctor", "--output", "json") == 4
    document: dict[str, Any] = json.loads(desk.stdout)
    (failed,) = [item for item in document["items"] if item["severity"] == "fail"]
    assert document["summary"]["fail"] == 1
    assert (failed["source"], failed["code"], failed["about"]) == ("crm", "TAB01", "app.customer")
    assert failed["fix"] == {
        "sql": ["ALTER TABLE app.customer REPLICA IDENTITY DEFAULT;"],
        "restart": False,
        "lock": True,
        "superuser": False,
    }
    assert failed["docs"] == "docs/dba-guide.md#tab01"


def test_a_source_that_cannot_be_queried_is_reported_and_decides_the_exit_code(desk: Desk, tmp_path: Path) -> None:
    assert desk("doctor", dsn=f"host={tmp_path} dbname=nothing") == 69
    assert "SRC01" in desk.stdout
    desk.patient.sql("ALTER ROLE {role} NOLOGIN")
    assert desk("doctor") == 77
    assert desk("doctor", "--source", "cmr") == 1
    assert "crm" in desk.stderr.lower()


def test_beside_a_running_sidecar_the_path_through_it_is_proved_and_its_rounds_find_nothing(desk: Desk) -> None:
    sidecar = Sidecar(load(desk.file(), {"HOME": str(desk.file().parent)}))
    sidecar.start()
    try:
        wait_for(lambda: all(status.state == "streaming" for status in sidecar.statuses()), "it streams")
        for _ in range(5):  # the store's position and the slot's move on while they are compared
            desk.patient.sql("UPDATE app.customer SET points = points + 1")
            sidecar.doctor.round()
            assert {check.code: check.seen for check in sidecar.doctor.checks if check.severity != "ok"}.keys() <= {
                "CAP07"
            }
        assert sidecar.metrics.registry.get_sample_value(
            "cdc_merge_doctor_check_status", {"source": "crm", "check": "POS03"}
        ) == (0.0)
        assert desk("doctor") == 0
        assert "ok       SLT12" in desk.stdout
    finally:
        sidecar.stop()


# ---------------------------------------------------------------- grants and slots


@pytest.fixture
def either_desk(either: Patient, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(either, tmp_path, capsys)


def test_the_printed_grants_make_a_role_about_which_no_check_is_unknown(either_desk: Desk) -> None:
    desk = either_desk
    desk.patient.sql("DROP PUBLICATION cdc_merge")
    assert desk("source", "grants", "crm", "--role", "granted {one}") == 0
    script = desk.stdout
    try:
        psql(desk.patient, script)
        dsn = desk.patient.dsn.replace("user=postgres", "user='granted {one}'")
        assert desk("doctor", "--problems", "--strict", dsn=dsn) == 0, desk.stdout
        removal = re.findall(r"^-- ((?:DROP|REVOKE) .*;)$", script, re.MULTILINE)
        desk.patient.sql(*removal)
    finally:
        desk.patient.sql('DROP ROLE IF EXISTS "granted {one}"')
    assert desk("source", "grants", "--platform", "rds") == 0
    assert "GRANT rds_replication" in desk.stdout
    assert "ALTER SYSTEM" not in desk.stdout


def test_nothing_that_is_printed_changes_the_role_that_one_is_logged_in_as(desk: Desk) -> None:
    superuser = desk.patient.dsn
    for command in (("source", "grants"), ("doctor", "--sql"), ("uninstall", "--dry-run")):
        desk(*command, dsn=superuser)
        statements = [line for line in desk.stdout.splitlines() if not line.startswith("--")]
        assert not [line for line in statements if re.search(r"\bpostgres\b", line)], command
    assert desk("source", "grants", dsn=superuser) == 0
    assert "CREATE ROLE cdc_merge LOGIN REPLICATION" in desk.stdout
    assert "write user=cdc_merge into the DSN of crm" in desk.stdout
    desk("source", "grants", dsn=superuser.replace("user=postgres", "user=cdc_merge_crm"))
    assert "CREATE ROLE cdc_merge_crm LOGIN" in desk.stdout


def test_the_grants_name_a_table_whose_name_has_braces() -> None:
    for table in ("{draft}", "{role}", "{"):
        subject = Subject("crm", "s", "p", tables={f"public.{table}": ("no",)}, written=(f"public.{table}",))
        script = list(grants(subject, "{role}", "{database}", "plain"))
        assert f'GRANT SELECT ON public."{table}" TO "{{role}}";' in script
        assert f'GRANT INSERT, UPDATE, DELETE ON public."{table}" TO "{{role}}";' in script


def test_a_slot_is_made_and_dropped_on_ones_word_and_dry_runs_do_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert desk("source", "create-slot", "crm", "--dry-run") == 0
    assert desk.slots() == 0
    assert desk("source", "create-slot", "crm") == 0
    assert desk("source", "create-slot", "crm") == 1
    assert desk("source", "drop-slot", "crm", "--dry-run") == 0
    assert desk.slots() == 1
    assert desk("source", "drop-slot", "crm") == 130  # nobody answers
    assert desk.slots() == 1
    assert desk("source", "drop-slot", "crm", "--yes") == 0
    assert desk.slots() == 0
    assert desk("source", "drop-slot", "crm", "--yes") == 1


@contextmanager
def streaming(patient: Patient) -> Iterator[None]:
    with Reading(patient.own_dsn, {"app.customer": ("no", "name")}, slot=patient.slot) as reading:
        reading.start()
        reading.until_streaming()
        yield


def test_a_slot_that_is_read_or_belongs_to_others_is_never_dropped(desk: Desk) -> None:
    with streaming(desk.patient):
        assert desk("source", "drop-slot", "crm", "--yes") == 1
        assert "Stop the sidecar first" in desk.stderr
        assert desk("uninstall", "--yes") == 4
        assert "replication connection" in desk.stdout
    assert desk("uninstall", "--verify") == 4
    assert desk.slots() == 1
    assert desk("uninstall", "--yes") == 0
    assert desk.slots() == 0
    desk.patient.sql("SELECT pg_create_logical_replication_slot('{slot}', 'test_decoding')")
    assert desk("source", "drop-slot", "crm", "--yes") == 1
    assert desk.slots() == 1


def test_uninstall_names_what_only_the_dba_removes_and_never_drops_what_a_role_owns(desk: Desk) -> None:
    assert desk("uninstall", "--verify") == 0
    assert "DROP PUBLICATION IF EXISTS cdc_merge;" in desk.stdout
    assert "DROP OWNED" not in desk.stdout
    assert desk("uninstall", "--verify", "--output", "json") == 0
    assert json.loads(desk.stdout)["items"][0]["left"] == []


def test_a_slot_that_would_wait_for_too_long_is_not_made_and_the_blocker_is_named(patient: Patient) -> None:
    with psycopg.connect(patient.dsn) as blocker:
        blocker.execute("INSERT INTO app.customer VALUES ('C7', 'x')")
        with pytest.raises(SourceUnavailable, match="open transactions") as caught:
            slot_lifecycle.create(patient.subject(), patient.own_dsn, limit_ms=300)
        assert f"process {blocker.info.backend_pid}" in caught.value.hint
    assert patient.sql("SELECT count(*) FROM pg_replication_slots")[0][0] == 0


# ---------------------------------------------------------------- what the repository says


def test_the_guide_has_a_section_for_each_check_as_the_code_has_it() -> None:
    text = (ROOT / guide.GUIDE).read_text()
    assert guide.guide(text) == text, "run python -m cdc_merge.doctor.guide"
    sections = re.findall(r"^#### (\w+)$", text, re.MULTILINE)
    assert sections == [kind.code for kind in ALL_CHECKS]
    linked = set(re.findall(r"\(#([a-z]{3}\d\d)\)", text))
    assert linked <= {code.lower() for code in sections}


def test_the_example_scripts_are_what_the_command_prints() -> None:
    for name, text in guide.scripts().items():
        assert (ROOT / guide.SCRIPTS / name).read_text() == text, "run python -m cdc_merge.doctor.guide"


def test_before_publishing_finds_what_would_break_and_its_fix_prevents_it(patient: Patient) -> None:
    patient.sql(
        "CREATE TABLE app.loose (id int)",
        "CREATE TABLE app.late (id int PRIMARY KEY DEFERRABLE)",
        "CREATE TABLE app.fine (id int PRIMARY KEY)",
    )
    script = (ROOT / guide.SCRIPTS / "before-publishing.sql").read_text()
    rows = [line.split("|") for line in psql(patient, script, schema="app").splitlines()]
    assert [row[0] for row in rows] == ["app.late", "app.loose"]
    patient.sql(
        *(row[2] for row in rows),
        "ALTER PUBLICATION cdc_merge ADD TABLE app.loose, app.late",
        "UPDATE app.loose SET id = 2",
        "UPDATE app.late SET id = 2",
    )
    assert psql(patient, script, schema="app") == ""


def test_watch_slots_runs_and_names_our_slot(patient: Patient) -> None:
    patient.sql("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")
    assert patient.slot in psql(patient, (ROOT / guide.SCRIPTS / "watch-slots.sql").read_text())
