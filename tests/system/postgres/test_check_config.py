"""`check-config` against a real server: what the catalogs contradict, with the line of the file that says it."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from cdc_merge.cli.main import run

TABLES = """
create table customer (no text primary key, phone varchar(20), points integer, tags text[], updated_by text);
create table partner (code text primary key, tel text, bonus numeric(10, 2), memo bytea);
create publication cdc_merge for table customer, partner;
"""
FILE = """
sources:
  crm: { type: postgres, dsn: ${CRM_DSN} }
entities:
  customer:
    from:
      crm: { table: customer, key: no, fields: { phone: phone, points: points } }
    fields:
      points: { merge: counter }
"""


@pytest.fixture
def check(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(TABLES)
    monkeypatch.setenv("CRM_DSN", database)
    monkeypatch.setenv("HOME", str(tmp_path))
    return Check(tmp_path / "x.yaml", capsys)


class Check:
    """Runs the command on a text; gives the exit code and what it says about the file, without the file's name."""

    def __init__(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._file = file
        self._capsys = capsys

    def __call__(self, text: str) -> tuple[int, list[str]]:
        self._file.write_text(text)
        code = run(["--config", str(self._file), "check-config"])
        said = self._capsys.readouterr().err.splitlines()
        prefix = f"{self._file}:"
        return code, [line.removeprefix(prefix) for line in said if line.startswith(prefix)]


def test_a_file_that_fits_its_server_is_good(check: Check) -> None:
    assert check(FILE) == (0, [])


def test_every_unknown_column_and_every_type_that_cannot_merge_is_reported(check: Check) -> None:
    wrong = FILE.replace("phone: phone", "phone: phon").replace("points: points", "points: tags")
    assert check(wrong) == (
        78,
        [
            "7: entities.customer.from.crm.fields.phone: public.customer has no column 'phon' (did you mean phone?)",
            "9: entities.customer.fields.points.merge: merge: counter cannot read the column of crm (array)"
            " (it reads decimal, integer)",
        ],
    )


def test_an_unknown_table_is_named_once(check: Check) -> None:
    code, said = check(FILE.replace("table: customer", "table: custmer"))
    assert code == 78
    assert said == [
        "7: entities.customer.from.crm.table: crm has no table public.custmer"
        " (check the name, and write it as schema.table)"
    ]


def test_a_publication_that_does_not_exist_is_named_at_its_source(check: Check) -> None:
    code, said = check(FILE.replace("${CRM_DSN} }", "${CRM_DSN}, publication: nothing }"))
    assert code == 78
    assert len(said) == 1
    assert said[0].startswith("3: sources.crm.publication: Publication nothing does not exist")


def test_an_invalid_dsn_is_reported_as_a_problem_of_the_file(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRM_DSN", "geheim and no dsn")
    code, said = check(FILE)
    assert code == 78
    assert said[0].startswith("3: sources.crm.dsn: ")
    assert "geheim" not in said[0]


def test_an_unreachable_server_is_exit_69_and_no_problem_of_the_file(
    check: Check, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CRM_DSN", f"host={tmp_path} dbname=nothing")
    assert check(FILE) == (69, [])


def test_a_refused_login_is_exit_77(check: Check, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("drop role if exists check_config_nologin")
        connection.execute("create role check_config_nologin nologin")
    monkeypatch.setenv("CRM_DSN", f"{database} user=check_config_nologin")
    assert check(FILE)[0] == 77


def test_an_array_and_a_text_make_one_set_and_bytes_make_none(check: Check) -> None:
    erp = "      erp: { table: partner, key: code, fields: { phone: tel, points: bonus, tags: memo } }\n"
    two = FILE.replace("entities:", "  erp: { type: postgres, dsn: ${CRM_DSN} }\nentities:")
    two = two.replace("    fields:\n", f"{erp}    fields:\n")
    code, said = check(two.replace("points: points", "points: points, tags: tags") + "      tags: { merge: set }\n")
    assert code == 78
    assert [line for line in said if "cannot" in line] == [
        "12: entities.customer.fields.tags.merge: merge: set cannot read the column of erp (bytes)"
        " (it reads array, json, text)"
    ]
    good = two.replace("points: points", "points: points, tags: tags").replace("tags: memo", "tags: code")
    assert check(good + "      tags: { merge: set }\n")[0] == 0
