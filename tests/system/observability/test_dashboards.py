"""The dashboards: generated, clean by the linter's rules, and every query of them answered by a real demo."""

from __future__ import annotations

import copy
import json
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from matplotlib.image import imread

from cdc_merge.demo.play import DemoOptions, Scene, play
from grafana import pictures
from grafana.__main__ import DASHBOARDS, DIRECTORY, drawn
from tests.contracts.clicking import read
from tests.support.alerting import ROOT, parsed, program, prometheus, queried, wait_until
from tests.system.observability.dashboard_rules import MORE_RULES, RULES, Board, panels, substituted, targets
from tests.system.observability.quick_rules import quick_rules

FILES = sorted(DIRECTORY.glob("*.json"))
BOARDS = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in FILES}
# What a short demo has no sample of, and why.
WITHOUT_DATA = {
    "cdc_merge_slot_safe_bytes": "the demo's servers set no max_slot_wal_keep_size",
    "cdc_merge_doctor_check_status": "the doctor's first round comes after a minute",
    "cdc_merge_resyncs{": "nothing has to be read again",
    "cdc_merge_heartbeat_round_trip_seconds": "the demo's servers send none",
}
# A light of a severity that happens to have no open conflict shows nothing.
MAY_BE_EMPTY = re.compile(r": Oldest (critical|high|medium) conflict$")


def test_the_committed_dashboards_are_those_of_the_code() -> None:
    assert [file for file, text in drawn() if file.read_text(encoding="utf-8") != text] == []
    assert {board.uid for board in DASHBOARDS} == set(BOARDS)


@pytest.mark.parametrize("rule", [*RULES, *MORE_RULES], ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_keeps_the_rule(name: str, rule: Callable[[Board], Iterator[str]]) -> None:
    assert list(rule(BOARDS[name])) == []


def broken(change: Callable[[dict[str, Any]], object]) -> Board:
    board: dict[str, Any] = copy.deepcopy(BOARDS["cdc-merge-overview"])
    change(board)
    return board


def first(board: dict[str, Any]) -> dict[str, Any]:
    """The first panel that draws lines."""
    found: dict[str, Any] = next(panel for panel in board["panels"] if panel["type"] == "timeseries")
    return found


def set_query(board: dict[str, Any], expr: str) -> None:
    first(board)["targets"][0]["expr"] = expr


def narrowed(expr: str) -> str:
    return expr.replace("{}", '{job=~"$job", instance=~"$instance"}')


# rule → a fault that it must find
FAULTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "template_datasource": lambda board: board["templating"]["list"].pop(0),
    "template_job": lambda board: board["templating"]["list"][1].update(multi=False),
    "template_instance": lambda board: board["templating"]["list"].pop(2),
    "template_label_promql": lambda board: board["templating"]["list"][1].update(query="label_values(up{, job)"),
    "template_on_time_change_reload": lambda board: board["templating"]["list"][1].update(refresh=1),
    "panel_datasource": lambda board: first(board)["datasource"].update(uid="prometheus-1"),
    "panel_title_description": lambda board: first(board).update(description=""),
    "panel_units": lambda board: first(board)["fieldConfig"]["defaults"].pop("unit"),
    "panel_no_targets": lambda board: first(board).update(targets=[]),
    "target_promql": lambda board: set_query(board, "sum(rate(up))"),
    "target_logql": lambda board: first(board)["targets"][0]["datasource"].update(type="loki"),
    "target_logql_auto": lambda board: set_query(board, "rate(up[$__auto])"),
    "target_rate_interval": lambda board: set_query(board, narrowed("rate(cdc_merge_changes_total{}[5m])")),
    "target_job": lambda board: set_query(board, 'sum(up{instance=~"$instance"})'),
    "target_instance": lambda board: set_query(board, 'sum(up{job=~"$job"})'),
    "target_counter_agg": lambda board: set_query(board, narrowed("sum(cdc_merge_changes_total{})")),
    "uneditable_dashboard": lambda board: board.update(editable=True),
    "unique_ids": lambda board: first(board).update(id=1),
    "no_overlap": lambda board: first(board)["gridPos"].update(y=0),
    "lines_have_legends": lambda board: first(board)["targets"][0].update(legendFormat=""),
    "exposed_metrics": lambda board: set_query(board, narrowed("sum(cdc_merge_made_up{})")),
    "no_rate_of_gauges": lambda board: set_query(
        board, narrowed("rate(cdc_merge_source_lag_bytes{}[$__rate_interval])")
    ),
}


@pytest.mark.parametrize("rule", [*RULES, *MORE_RULES], ids=lambda rule: rule.__name__)
def test_the_rule_finds_its_fault(rule: Callable[[Board], Iterator[str]]) -> None:
    assert list(rule(broken(FAULTS[rule.__name__]))) != []


def test_every_link_to_a_dashboard_or_a_file_of_ours_leads_somewhere() -> None:
    provider = parsed(ROOT / "grafana" / "provisioning" / "dashboards" / "cdc-merge.yaml")["providers"][0]
    assert Path(provider["options"]["path"]).name == DIRECTORY.name
    source = parsed(ROOT / "grafana" / "provisioning" / "datasources" / "prometheus.yaml")["datasources"][0]
    assert source["type"] == "prometheus"
    for name, board in BOARDS.items():
        assert board["uid"] == name
        assert {link["type"] for link in board["links"]} == {"dashboards", "link"}
        assert board["links"][0]["tags"] == board["tags"]


def test_every_link_of_a_panel_leads_to_a_runbook_or_to_a_path_of_the_api() -> None:
    links = [
        link["url"]
        for board in BOARDS.values()
        for panel in panels(board)
        for link in panel["fieldConfig"]["defaults"].get("links", ())
    ]
    pages = {url for url in links if not url.startswith("http")}
    assert len(pages) > 12
    assert [url for url in pages if not (ROOT / url).is_file()] == []
    paths = {re.sub(r"^http://\$\{[\w.]+\.instance\}", "", url).partition("?")[0] for url in {*links} - pages}
    assert paths == {"/", "/api/v1/sources"}


def test_a_link_of_a_table_uses_fields_and_a_link_of_lines_uses_labels() -> None:
    for board in BOARDS.values():
        for panel in panels(board):
            links = str(panel["fieldConfig"]["defaults"].get("links", ""))
            assert "__data.fields" not in links or panel["type"] == "table", panel["title"]
            assert "__field.labels" not in links or panel["type"] == "timeseries", panel["title"]


def test_restarts_reloads_and_alerts_are_marked_in_every_dashboard() -> None:
    for board in BOARDS.values():
        assert {each["name"] for each in board["annotations"]["list"]} == {"Alerts", "Restarts", "Reloads"}


# ---------------------------------------------------------------- against a real demo


class Watched:
    """A screen that shows nothing and knows when the play has begun."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.address = ""

    def say(self, sentence: str) -> None:
        return

    def open(self, scene: Scene) -> None:
        self.address = scene.address.removeprefix("http://")
        self.begun.set()

    def tick(self, scene: Scene) -> None:
        return

    def close(self) -> None:
        self.begun.set()


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Prometheus that scrapes a demo in which people work; its address."""
    program("prometheus", "prometheus")
    directory = tmp_path_factory.mktemp("observed")
    screen, enough = Watched(), threading.Event()
    acting = threading.Thread(target=play, args=(DemoOptions(None, None, 3, enough), screen))
    with ExitStack() as stack:
        stack.callback(acting.join, 90)
        stack.callback(enough.set)
        acting.start()
        wait_until(screen.begun.is_set, "the demo plays", 90)
        assert screen.address, "the demo did not begin"
        (directory / "rules").mkdir()
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "900ms", "evaluation_interval": "1s"},
            "rule_files": [quick_rules(directory / "rules")],
            "scrape_configs": [{"job_name": "cdc-merge", "static_configs": [{"targets": [screen.address]}]}],
        }
        yield stack.enter_context(prometheus(directory / "prometheus", config))


def replayed(expr: str) -> str:
    """As Grafana queries with every variable at All, over the last minute."""
    everything = re.sub(r'=~"\$\w+"', '=~".+"', expr)
    return substituted(everything, {"$__rate_interval": "8s", "$__range": "1m"})


def is_expected(where: str, expr: str) -> bool:
    return not MAY_BE_EMPTY.search(where) and not any(name in expr for name in WITHOUT_DATA)


def test_every_query_of_every_dashboard_is_answered_by_a_real_demo(observed: str) -> None:
    queries = [(f"{name}: {title}", expr) for name, board in BOARDS.items() for title, expr in targets(board)]
    empty = {query for query in queries if is_expected(*query)}
    assert len(empty) > 55

    def all_answered() -> bool:
        empty.difference_update([query for query in empty if queried(observed, replayed(query[1]))])
        return not empty

    try:
        wait_until(all_answered, "every query finds something", 60)
    except AssertionError:
        pytest.fail("\n".join(f"{where}: {replayed(expr)}" for where, expr in sorted(empty)))


def addressed(url: str, labels: Mapping[str, str]) -> str:
    """A link as Grafana fills it in for a row of a table or for a line. KeyError if it has no such field or label."""
    return re.sub(
        r"\$\{__(?:data\.fields|field\.labels)\.(\w+)\}",
        lambda field: urllib.parse.quote(labels[field[1]], safe=":"),
        url,
    )


LINKED = [
    (f"{name}: {panel['title']}", link["url"], panel["targets"])
    for name, board in BOARDS.items()
    for panel in panels(board)
    for link in panel["fieldConfig"]["defaults"].get("links", ())
    if link["url"].startswith("http")
]


@pytest.mark.parametrize(("where", "url", "queries"), LINKED, ids=[where for where, *_ in LINKED])
def test_every_row_of_a_panel_leads_to_an_address_that_the_sidecar_answers(
    observed: str, where: str, url: str, queries: list[Board]
) -> None:
    rows: list[Mapping[str, str]] = []

    def has_rows() -> bool:
        rows[:] = [row["metric"] for each in queries for row in queried(observed, replayed(each["expr"]))]
        return bool(rows)

    wait_until(has_rows, f"{where} has rows")
    answered = {addressed(url, row): httpx.get(addressed(url, row), timeout=10) for row in rows}
    assert {address: got.status_code for address, got in answered.items() if got.status_code != 200} == {}
    if "/api/" not in url:
        assert all(
            " customer" in read(address, got.text).text for address, got in answered.items() if "customer" in address
        )


def test_queries_without_data_in_a_short_demo_are_valid(observed: str) -> None:
    exprs = [expr for board in BOARDS.values() for _, expr in targets(board)]
    for name in WITHOUT_DATA:
        found = [expr for expr in exprs if name in expr]
        assert found, f"no query uses {name}"
        for expr in found:
            queried(observed, replayed(expr))


def test_every_dashboard_is_drawn_from_what_prometheus_answers(observed: str, tmp_path: Path) -> None:
    assert pictures.main([observed, str(tmp_path)]) == 0
    for name in BOARDS:
        drawn = imread(tmp_path / f"{name}.png")
        assert drawn.shape[1] == 24 * pictures.COLUMN
        coloured = (drawn[..., :3].max(axis=2) - drawn[..., :3].min(axis=2) > 0.3).mean()
        assert coloured > 0.001, f"{name} shows no data"


def test_no_two_panels_of_a_picture_lie_over_each_other() -> None:
    for board in DASHBOARDS:
        boxes = [box for box, _ in pictures.placed(board)]
        for number, a in enumerate(boxes):
            for b in boxes[:number]:
                is_apart = (
                    a.x >= b.x + b.width or b.x >= a.x + a.width or a.y >= b.y + b.height or b.y >= a.y + a.height
                )
                assert is_apart, (board.uid, a, b)


def test_the_pictures_of_the_documentation_are_there() -> None:
    assert {file.stem for file in (ROOT / "docs" / "dashboards").iterdir()} == set(BOARDS)


def test_no_panel_is_drawn_twice() -> None:
    titles = [(name, panel["title"]) for name, board in BOARDS.items() for panel in panels(board)]
    assert len({*titles}) == len(titles) > 50
