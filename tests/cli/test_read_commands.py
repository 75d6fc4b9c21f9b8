"""What the reading commands print, and how they end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from cdc_merge.cli.main import run
from cdc_merge.cli.table_output import plain_lines, printable
from cdc_merge.console.http_server import HttpServer
from cdc_merge.errors import StoreUnavailable
from cdc_merge.model import UNKNOWN, Candidate, Conflict, Missing, RecordKey, Stamp
from cdc_merge.queries.documents import Document
from cdc_merge.queries.responses import (
    conflict_document,
    conflicts_document,
    explain_document,
    history_document,
    record_document,
)
from tests.contracts.memory_reading import T0, MemoryReading, customer, phone_conflict, place, stamp, with_records

CONFIG = """
store: sqlite:///{directory}/state.db
http: {{ listen: "127.0.0.1:{port}" }}
sources:
  crm: {{ type: postgres, dsn: "host=127.0.0.1 dbname=crm" }}
entities:
  customer:
    from:
      crm: {{ table: public.customer, key: customer_no, fields: {{ phone: mobile }} }}
"""
KEY = RecordKey("customer", "C001")
Ran = tuple[int, str, str]


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> MemoryReading:
    reading = with_records("C001")
    monkeypatch.setattr("cdc_merge.app.sidecar.open_queries", lambda settings: reading)
    return reading


@pytest.fixture
def config(tmp_path: Path) -> Callable[[int], Path]:
    def written(port: int) -> Path:
        file = tmp_path / "cdc-merge.yaml"
        file.write_text(CONFIG.format(directory=tmp_path, port=port))
        return file

    return written


@pytest.fixture
def cli(config: Callable[[int], Path], capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs a command line with a configuration whose sidecar is not there (port 0)."""
    file = config(0)

    def called(*arguments: str) -> Ran:
        code = run(["--config", str(file), *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return called


def as_json(ran: Ran) -> Document:
    code, out, err = ran
    assert (code, err) == (0, "")
    document: Document = json.loads(out)
    return document


# ---------------------------------------------------------------- json


def test_json_is_the_document_of_the_api(cli: Callable[..., Ran], reading: MemoryReading) -> None:
    output = ("--output", "json")
    assert as_json(cli(*output, "conflicts", "list")) == conflicts_document(reading, {}, None, 100)
    assert as_json(cli(*output, "conflicts", "show", "c1")) == conflict_document(reading, "c1")
    assert as_json(cli(*output, "record", "show", "customer", "C001")) == record_document(reading, KEY, None)
    assert as_json(cli(*output, "record", "history", "customer", "C001")) == history_document(reading, KEY, None, 100)
    assert as_json(cli(*output, "record", "explain", "customer", "C001", "--field", "phone")) == explain_document(
        reading, KEY, "phone"
    )


@pytest.mark.usefixtures("reading")
def test_a_history_read_in_parts_is_the_whole_one(cli: Callable[..., Ran]) -> None:
    history = ("--output", "json", "record", "history", "customer", "C001")
    first = members_of(cli(*history, "--limit", "1"))
    rest = members_of(cli(*history, "--cursor", str(first["next_cursor"])))
    whole = members_of(cli(*history))
    assert [*first["items"], *rest["items"]] == whole["items"]
    assert (len(first["items"]), rest["next_cursor"]) == (1, None)
    assert members_of(cli(*history, "--field", "none"))["items"] == []
    code, out, err = cli("record", "history", "customer", "C001", "--limit", "1")
    assert (code, len(out.splitlines())) == (0, 2)
    assert err == f"More changes follow: --cursor {first['next_cursor']}\n"


@pytest.mark.usefixtures("reading")
def test_a_restore_is_planned_and_never_carried_out(cli: Callable[..., Ran]) -> None:
    restore = ("record", "restore", "customer", "C001")
    planned = members_of(cli("--output", "json", *restore, "--to-clean", "--dry-run"))
    assert (planned["applied"], planned["writes"][0]["source"]) == (False, "erp")
    code, out, err = cli(*restore, "--to", "2026-05-01T08:00:00Z", "--dry-run")
    assert (code, err) == (0, "")
    assert "erp     update  phone  3      2" in out.splitlines()
    code, _, err = cli(*restore, "--to", "2026-05-01T08:00:00Z")
    assert code == 1
    assert err.startswith("cdc-merge: Nothing was written")


@pytest.mark.parametrize("when", [(), ("--to-clean", "--to", "2026-05-01"), ("--to", "yesterday")])
def test_a_restore_without_one_time_is_a_usage_error(cli: Callable[..., Ran], when: tuple[str, ...]) -> None:
    assert cli("record", "restore", "customer", "C001", *when)[0] == 2


@pytest.mark.usefixtures("reading")
def test_what_is_missing_is_a_list(cli: Callable[..., Ran], reading: MemoryReading) -> None:
    reading.all_missing = [Missing("customer", "C2", "erp", T0)]
    assert members_of(cli("--output", "json", "record", "missing", "customer"))["items"] == [
        {"entity": "customer", "key": "C2", "source": "erp", "since": "2026-09-21T14:13:20.000000Z"}
    ]
    assert cli("record", "missing", "customer")[1].splitlines()[1].split()[:2] == ["C2", "erp"]


def members_of(ran: Ran) -> dict[str, Any]:
    document = as_json(ran)
    assert isinstance(document, dict)
    return document


def test_output_means_the_same_after_the_command(cli: Callable[..., Ran], reading: MemoryReading) -> None:
    before = cli("--output", "json", "record", "show", "customer", "C001")
    assert cli("record", "show", "customer", "C001", "--output", "json") == before
    assert cli("--output", "json", "record", "show", "customer", "C001", "--output", "table") != before


def test_an_empty_list_is_no_failure(cli: Callable[..., Ran], reading: MemoryReading) -> None:
    reading.all_conflicts = []
    assert as_json(cli("--output", "json", "conflicts", "list")) == {"items": [], "next_cursor": None}
    code, _, err = cli("conflicts", "list")
    assert (code, err) == (0, "No conflict matches.\n")


# ---------------------------------------------------------------- conflicts


def rows_of(out: str) -> list[str]:
    """The rows of a printed table, without its heading and what is printed below a row."""
    return [line for line in out.splitlines()[1:] if not line.startswith("    ")]


def test_a_list_follows_all_pages_and_says_where_it_stopped(cli: Callable[..., Ran], reading: MemoryReading) -> None:
    reading.all_conflicts = [phone_conflict(f"c{number:04}") for number in range(1201)]
    everything = as_json(cli("--output", "json", "conflicts", "list", "--limit", "10000"))
    assert isinstance(everything, dict)
    assert isinstance(everything["items"], list)
    assert len(everything["items"]) == 1201
    code, out, err = cli("conflicts", "list", "--limit", "600")
    assert code == 0
    assert len(rows_of(out)) == 600
    assert "--cursor 600" in err


def test_filters_choose(cli: Callable[..., Ran], reading: MemoryReading) -> None:
    reading.all_conflicts.append(phone_conflict("c2", status="closed"))
    _, out, _ = cli("conflicts", "list", "--status", "closed", "--entity", "customer", "--severity", "high")
    assert [row.split()[0] for row in rows_of(out)] == ["c2"]


def test_a_table_elsewhere_than_on_a_terminal_is_plain_aligned_text(
    cli: Callable[..., Ran], reading: MemoryReading
) -> None:
    _, out, _ = cli("conflicts", "list")
    assert "\x1b" not in out
    heading, row, below = out.splitlines()
    assert heading.index("KIND") == row.index("concurrent_update")
    assert below == "    candidates: crm: wrote “2”; erp: wrote “3”"


def test_a_table_fits_a_hundred_columns_and_cuts_no_id(cli: Callable[..., Ran], reading: MemoryReading) -> None:
    id_ = "01999f6e-8d3f-7c55-9f2b-3d8e4a1b2c3d"
    reading.all_conflicts = [replace(phone_conflict(key=f"C{'0' * 40}1"), id=id_)]
    _, out, _ = cli("conflicts", "list")
    assert max(map(len, out.splitlines())) <= 100
    assert out.splitlines()[1].startswith(f"{id_}  open")
    assert "candidates: crm: wrote “2”; erp: wrote “3”" in " ".join(out.split())
    assert f"C{'0' * 40}1" in out


def test_a_list_is_a_screen_and_its_end_leads_on(cli: Callable[..., Ran], reading: MemoryReading) -> None:
    reading.all_conflicts = [replace(phone_conflict(), id=f"c{number:03}") for number in range(60)]
    code, out, err = cli("conflicts", "list")
    assert (code, len(rows_of(out))) == (0, 50)
    assert "--cursor 50" in err
    assert "--group-by" in err


def test_conflicts_are_counted_by_what_they_have_in_common(cli: Callable[..., Ran], reading: MemoryReading) -> None:
    labelled = replace(phone_conflict().detected, labels=("baseline",))
    other = replace(phone_conflict().detected, field="name")
    reading.all_conflicts = [
        replace(phone_conflict(), id="c1", raised_us=T0 + 5),
        replace(phone_conflict(), id="c2", detected=labelled),
        replace(phone_conflict(), id="c3", detected=other),
    ]
    code, out, err = cli("conflicts", "list", "--group-by", "field,pair")
    assert (code, err) == (0, "")
    assert [line.split("  ")[0].strip() for line in out.splitlines()[1:]] == ["2", "1"]
    document = as_json(cli("--output", "json", "conflicts", "list", "--group-by", "field,pair,actor"))
    first = members_of((0, json.dumps(document), ""))["items"]
    assert [(g["count"], g["field"], g["pair"], g["actor"], g["latest"]) for g in first] == [
        (2, "phone", "crm + erp", "unknown actor", "c1"),
        (2, "phone", "crm + erp", "wang", "c1"),
        (1, "name", "crm + erp", "unknown actor", "c3"),
        (1, "name", "crm + erp", "wang", "c3"),
    ]
    _, out, _ = cli("conflicts", "list", "--label", "baseline")
    assert [row.split()[0] for row in rows_of(out)] == ["c2"]
    assert cli("conflicts", "list", "--group-by", "feild")[0] == 2


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize("command", ["list", "show"])
def test_a_misspelt_entity_is_an_error_and_no_empty_queue(cli: Callable[..., Ran], command: str) -> None:
    code, out, err = cli("conflicts", command, "--entity", "custmer")
    assert (code, out) == (1, "")
    assert "There is no entity custmer" in err
    assert "customer" in err


@pytest.mark.usefixtures("reading")
def test_a_kind_that_does_not_exist_is_an_error(cli: Callable[..., Ran]) -> None:
    code, _, err = cli("conflicts", "list", "--kind", "concurent_update")
    assert code == 2
    assert "concurrent_update" in err
    assert cli("conflicts", "list", "--source", "cmr")[0] == 1


def test_a_conflict_is_shown_as_sentences(cli: Callable[..., Ran], reading: MemoryReading) -> None:
    code, out, _ = cli("conflicts", "show", "c1")
    assert code == 0
    assert out.splitlines() == [
        "customer C001, phone: concurrent_update",
        "  high, open, revision 2",
        "  Raised 2026-09-21T14:13:20.000000Z.",
        "  Announced 2026-09-21T14:13:22.000000Z.",
        "",
        "  crm: wang wrote “2” at 2026-09-21T14:13:20.000001Z.",
        "    It had seen 1790000000000000.0@erp.",
        "    stamp 1790000000000001.0@crm, public.customer at 0/16B3748",
        "  erp: unknown actor wrote “3” at 2026-09-21T14:13:20.000002Z.",
        "    It had seen no other write.",
        "    stamp 1790000000000002.0@erp, public.customer at 0/16B3750",
        "",
        "  Base value: “1”.",
        "  Provisional value until the decision: “3”.",
        "  No suggestion.",
    ]


def test_a_delete_against_an_update_is_shown_as_such(cli: Callable[..., Ran], reading: MemoryReading) -> None:
    conflict = phone_conflict()
    deletion = Candidate("crm", None, stamp(1, "crm"), T0, "wang", place(1))
    changed = Candidate("erp", {"phone": "3", "note": None}, stamp(2, "erp"), T0, None, place(2))
    detected = replace(conflict.detected, kind="update_delete", field=None, candidates=(deletion, changed))
    reading.all_conflicts = [replace(conflict, detected=detected)]
    _, out, _ = cli("conflicts", "show", "c1")
    assert "crm: wang deleted the row at" in out
    assert "erp: unknown actor set phone to “3”, note to NULL at" in out
    assert "Provisional value" not in out


def shared_tax_number() -> Conflict:
    first = Candidate("crm", {"tax_no": "7"}, stamp(1, "crm"), T0, "wang", place(1), key="C001")
    second = Candidate("erp", {"tax_no": " 7"}, stamp(2, "erp"), T0, None, place(2), key="C002")
    detected = replace(phone_conflict().detected, kind="duplicate", field=None, candidates=(first, second))
    detected = replace(detected, base=UNKNOWN, provisional=None, records=("C001", "C002"))
    return replace(phone_conflict(), detected=detected)


def test_a_duplicate_names_every_record_and_whose_each_value_is(
    cli: Callable[..., Ran], reading: MemoryReading
) -> None:
    reading.all_conflicts = [shared_tax_number()]
    _, out, _ = cli("conflicts", "show", "c1")
    assert out.splitlines()[0] == "customer C001: duplicate"
    assert "  About 2 records: C001, C002." in out
    assert "  C001 in crm: wang set tax_no to “7” at" in out
    assert "  C002 in erp: unknown actor set tax_no to “ 7” at" in out
    assert "base value" not in out
    _, out, _ = cli("conflicts", "list")
    assert "C002 in erp: set tax_no to “ 7”" in out
    _, out, _ = cli("record", "show", "customer", "C001")
    assert "conflict c1: duplicate of C001, C002, open" in out


def test_text_of_a_stranger_cannot_steer_the_terminal(cli: Callable[..., Ran], reading: MemoryReading) -> None:
    reading.all_conflicts = [phone_conflict(key="\x1b[2J\u202eC001\nc9  open")]
    for command in (("conflicts", "list"), ("conflicts", "show", "c1")):
        _, out, _ = cli(*command)
        assert "\x1b" not in out
        assert "\u202e" not in out
        assert "\nc9" not in out


# ---------------------------------------------------------------- records


def test_a_record_shows_merged_and_every_view_side_by_side(cli: Callable[..., Ran], reading: MemoryReading) -> None:
    _, out, _ = cli("record", "show", "customer", "C001")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["customer", "C001"]
    assert lines[1] == ["FIELD", "MERGED", "CRM", "ERP"]
    assert ["phone", "3", "2", "3"] in lines
    assert ["balance", "1000", "–", "–"] in lines
    assert lines[-1] == ["conflict", "c1:", "concurrent_update", "of", "phone,", "open"]


def test_a_record_as_of_a_stamp_is_read_at_that_stamp(cli: Callable[..., Ran], reading: MemoryReading) -> None:
    code, out, _ = cli("record", "show", "customer", "C001", "--as-of", f"{T0}.0@crm")
    assert code == 0
    assert reading.moments == [Stamp(T0, 0, "crm")]
    assert f"as of {T0}.0@crm" in out


def test_a_moment_that_is_none_is_a_usage_error(cli: Callable[..., Ran], reading: MemoryReading) -> None:
    code, out, err = cli("record", "show", "customer", "C001", "--as-of", "yesterday")
    assert (code, out) == (2, "")
    assert "ISO 8601" in err


def test_a_history_shows_before_and_after_and_can_be_of_one_field(
    cli: Callable[..., Ran], reading: MemoryReading
) -> None:
    _, out, _ = cli("record", "history", "customer", "C001")
    assert "phone: 1 → 2" in out
    assert "phone: – → 3" in out
    none = as_json(cli("--output", "json", "record", "history", "customer", "C001", "--field", "name"))
    assert none == {"items": [], "next_cursor": None}


def test_an_explanation_says_why(cli: Callable[..., Ran], reading: MemoryReading) -> None:
    _, out, _ = cli("record", "explain", "customer", "C001", "--field", "phone")
    assert out.splitlines()[0] == "customer C001, phone (mv): 3"
    assert "erp had not seen it." in out


# ---------------------------------------------------------------- how they end


@pytest.mark.parametrize(
    "command",
    [
        ("conflicts", "show", "none"),
        ("record", "show", "customer", "none"),
        ("record", "history", "customer", "none"),
        ("record", "explain", "customer", "none", "--field", "phone"),
        ("record", "explain", "customer", "C001", "--field", "none"),
    ],
)
@pytest.mark.parametrize("output", ["table", "json"])
def test_what_does_not_exist_is_exit_1_with_a_sentence(
    cli: Callable[..., Ran], reading: MemoryReading, command: tuple[str, ...], output: str
) -> None:
    code, out, err = cli("--output", output, *command)
    assert (code, out) == (1, "")
    assert err.startswith("cdc-merge: ")
    assert "Traceback" not in err


def test_a_store_that_is_away_is_exit_69(cli: Callable[..., Ran], reading: MemoryReading) -> None:
    reading.broken = StoreUnavailable("The store is locked.", hint="Wait.")
    code, out, err = cli("conflicts", "list")
    assert (code, out) == (69, "")
    assert err == "cdc-merge: The store is locked.\n  Wait.\n"


def test_a_missing_configuration_is_exit_78(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["--config", str(tmp_path / "none.yaml"), "conflicts", "list"]) == 78
    assert "Traceback" not in capsys.readouterr().err


def test_no_store_yet_is_a_sentence_and_not_a_new_store(cli: Callable[..., Ran], tmp_path: Path) -> None:
    code, out, err = cli("conflicts", "list")
    assert (code, out) == (1, "")
    assert "There is no store" in err
    assert not (tmp_path / "state.db").exists()


# ---------------------------------------------------------------- sources


@pytest.fixture
def sidecar() -> Iterator[tuple[MemoryReading, int]]:
    live = with_records("C001")
    server = HttpServer(live, ("127.0.0.1", 0), CollectorRegistry())
    server.start()
    yield live, int(server.address.rpartition(":")[2])
    server.stop()


def test_the_sources_of_a_running_sidecar_are_listed(
    sidecar: tuple[MemoryReading, int], config: Callable[[int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _, port = sidecar
    assert run(["--config", str(config(port)), "--output", "json", "source", "list"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["items"][0]["state"] == "streaming"
    assert run(["--config", str(config(port)), "source", "list"]) == 0
    heading, row, *_ = capsys.readouterr().out.splitlines()
    assert heading.startswith("SOURCE")
    assert row.split()[:3] == ["crm", "streaming", "0/16B3700"]


def test_a_proxy_of_the_environment_is_not_used(
    sidecar: tuple[MemoryReading, int],
    config: Callable[[int], Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert run(["--config", str(config(sidecar[1])), "source", "list"]) == 0
    assert "streaming" in capsys.readouterr().out


def test_a_sidecar_of_other_sources_is_not_believed(
    sidecar: tuple[MemoryReading, int],
    config: Callable[[int], Path],
    capsys: pytest.CaptureFixture[str],
    reading: MemoryReading,
) -> None:
    live, port = sidecar
    (source,) = live.all_sources
    live.all_sources = [source._replace(status=replace(source.status, name="warehouse"))]
    reading.all_sources = [source._replace(status=replace(source.status, state="unknown"))]
    assert run(["--config", str(config(port)), "source", "list"]) == 0
    row = capsys.readouterr().out.splitlines()[1]
    assert row.split()[:2] == ["crm", "unknown"]


def test_without_a_sidecar_the_stored_state_is_shown_and_said_to_be(
    cli: Callable[..., Ran], reading: MemoryReading
) -> None:
    document = as_json(cli("--output", "json", "source", "list"))
    assert isinstance(document, dict)
    assert isinstance(document["items"], list)
    assert len(document["items"]) == 1
    assert cli("source", "list")[2] == "No running sidecar was contacted; showing stored state.\n"


# ---------------------------------------------------------------- tables


def test_columns_are_aligned_by_what_a_terminal_shows() -> None:
    assert plain_lines(("A", "B"), [("张伟", "1"), ("ab", "22")]) == ["A     B", "张伟  1", "ab    22"]


def test_control_characters_are_spelled_out() -> None:
    assert printable("a\tb\x00") == "a\\tb\\x00"
    assert printable("客户 001") == "客户 001"


def test_a_record_without_views_is_still_a_table(cli: Callable[..., Ran], reading: MemoryReading) -> None:
    reading.all_records[KEY] = replace(customer(), sources={}, values={}, deleted=True)
    code, out, _ = cli("record", "show", "customer", "C001")
    assert code == 0
    assert out.startswith("customer C001 (ended)")
