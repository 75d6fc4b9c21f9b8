"""The edge of the process: what every command shares, whatever it does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from cdc_merge.cli import main as edge
from cdc_merge.cli.main import COMMANDS, Entry, imported, run
from cdc_merge.errors import CdcMergeError, SourceRefused, SourceUnavailable

DEMO_FILE = Path(__file__).parents[2] / "cdc_merge" / "demo" / "cdc-merge.yaml"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_exists_and_explains_itself(name: str) -> None:
    command = imported(name)
    assert command.get_short_help_str()
    assert run([name, "--help"]) == 0


def test_help_lists_every_command_and_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)
    heavy = "psycopg,pydantic,fastapi,uvicorn,kafka,ruamel,rich,prometheus_client"
    probe = f"""
import sys
from cdc_merge.cli.main import run
run(["--help"])
sys.exit(",".join(name for name in {heavy!r}.split(",") if name in sys.modules) or 0)
"""
    ended = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [["nothing"], ["--output", "xml", "run"], ["schema"], ["schema", "nothing"]])
def test_a_mistyped_command_is_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Usage: cdc-merge" in shown.err


class Failing:
    """Puts a command that raises into the table, as a module that exists would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch

    def __call__(self, error: BaseException) -> int:
        @click.command()
        def command() -> None:
            raise error

        self._patch.setattr(edge, "imported", lambda _: command)
        return run(["run"])


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    return Failing(monkeypatch)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CdcMergeError("It failed.", hint="Do this."), 1),
        (SourceUnavailable("It is away.", hint="Do this."), 69),
        (SourceRefused("It says no.", problem="not_permitted", hint="Do this."), 77),
    ],
)
def test_an_error_is_a_sentence_a_hint_and_an_exit_code(
    failing: Failing, error: CdcMergeError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing(error) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == f"cdc-merge: {error}\n  Do this.\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interrupt_is_no_error(failing: Failing, error: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(error) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_bug_is_reported_with_its_place_and_no_value(failing: Failing, capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(ValueError("phone 13800138000")) == 1
    shown = capsys.readouterr().err
    assert "ValueError in " in shown
    assert "test_command_line.py:" in shown
    assert "13800138000" not in shown


def test_a_command_decides_its_own_exit_code(failing: Failing) -> None:
    assert failing(click.exceptions.Exit(4)) == 4


def test_a_missing_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "needs_extra.py").write_text("import no_such_extra_package.inner\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(edge, "COMMANDS", {"demo": Entry("needs_extra", "x")})
    with pytest.raises(CdcMergeError, match="needs the package no_such_extra_package"):
        imported("demo")
    monkeypatch.setattr(edge, "EXTRAS", {"no_such_extra_package": "demo"})
    with pytest.raises(CdcMergeError, match="needs the extra 'demo'") as caught:
        imported("demo")
    assert "pip install 'cdc-merge[demo]'" in caught.value.hint


def test_a_bad_file_ends_with_78_and_a_line_for_each_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("sources: {}\nsettle: 2\n")
    assert run(["--config", str(file), "check-config"]) == 78
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines()[0] == f"cdc-merge: {file} has 3 problems"
    assert [line for line in shown.err.splitlines() if line.startswith(f"{file}:")] != []


@pytest.mark.parametrize("output", ["table", "json"])
def test_a_valid_file_checked_offline_contacts_no_source(
    output: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("CRM_DSN", "ERP_DSN", "FINANCE_DSN"):
        monkeypatch.setenv(name, "host=/nowhere")
    monkeypatch.setenv("CDC_MERGE_STORE", "sqlite:///nowhere/state.db")
    monkeypatch.setenv("CDC_MERGE_LISTEN", "127.0.0.1:0")
    assert run(["--config", str(DEMO_FILE), "--output", output, "check-config", "--offline"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("{" if output == "json" else "customer: crm, erp, finance")
    assert shown.err == ""


def test_shells_can_complete_commands() -> None:
    script = (
        "import os; os.environ.update(_CDC_MERGE_COMPLETE='bash_complete', COMP_WORDS='cdc-merge ch', COMP_CWORD='1')"
    )
    probe = f"{script}; from cdc_merge.cli.main import main; main()"
    ended = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False, timeout=60)
    assert "check-config" in ended.stdout
