"""The runbooks: one page for each alert, the same sections, and every command, metric and event in them exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from cdc_merge.cli.main import group
from tests.support.alerting import ROOT
from tests.system.observability.alert_rules import ALERTS, NAMES
from tests.system.observability.runbook_pages import PAGES, commands
from tests.system.observability.tables import PAGE, written
from tests.system.observability.vocabulary import metric_names, recorded_names

SECTIONS = ["Meaning", "Impact", "First look", "Commands", "How to fix", "How to prevent"]
DOCUMENTS = [*PAGES, PAGE]


def named(page: Path) -> str:
    return page.stem


def families() -> set[str]:
    """Metrics as documentation names them: a histogram without the suffixes of its series."""
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in metric_names()}


def accepted(line: str) -> None:
    """Parse a command line as the program does, without running it. click's UsageError when it does not exist."""
    words = shlex.split(line)[1:]
    context: click.Context = group.make_context("cdc-merge", words, resilient_parsing=False)
    command: click.Command = group
    while isinstance(command, click.Group):
        # What a group left for its command; click has no public name for the first word since 8.2.
        name, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None, name
        command, context = found, found.make_context(name, rest, parent=context)


def test_there_is_a_page_for_each_alert_and_no_other() -> None:
    assert [page.stem for page in PAGES] == NAMES


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_a_page_has_every_section_in_order_with_something_in_it(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# {page.stem}\n")
    assert re.findall(r"^## (.+)$", text, re.M) == SECTIONS
    assert all(len(part.strip()) > 20 for part in re.split(r"^## .+$", text, flags=re.M)[1:])


@pytest.mark.parametrize("page", DOCUMENTS, ids=named)
def test_every_command_of_a_page_exists_with_its_options(page: Path) -> None:
    for line in commands(page.read_text(encoding="utf-8")):
        accepted(line)


@pytest.mark.parametrize(
    "line",
    [
        "cdc-merge conflict list",
        "cdc-merge source list --all",
        "cdc-merge conflicts show A B",
        "cdc-merge source heal crm",
    ],
)
def test_a_command_that_does_not_exist_is_noticed(line: str) -> None:
    with pytest.raises(click.UsageError):
        accepted(line)


def test_the_command_that_stands_in_an_alert_exists_whatever_its_labels_say() -> None:
    found = [rule["annotations"]["command"] for rule in ALERTS if "command" in rule["annotations"]]
    assert len(found) > 5
    for command in found:
        accepted(re.sub(r"\{\{ \$labels\.\w+ \}\}", "customer", command))


@pytest.mark.parametrize("page", DOCUMENTS, ids=named)
def test_every_metric_and_event_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    metrics = set(re.findall(r"`((?:[a-z_]+:)?cdc_merge_[a-z0-9_:]+|process_[a-z_]+)`", text))
    assert metrics - metric_names() - families() - recorded_names() == set()
    events = set(re.findall(r"events? `([a-z_]+)`", text))
    sources = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "cdc_merge").rglob("*.py"))
    assert [event for event in events if f'"{event}"' not in sources] == []


@pytest.mark.parametrize("page", DOCUMENTS, ids=named)
def test_every_link_within_the_documentation_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_documentation_lists_every_metric_and_every_alert_as_they_are() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == written(text), "python -m tests.system.observability.tables writes it"
    assert all(f"[{name}](runbooks/{name}.md)" in text for name in NAMES)
