"""`cdc-merge conflicts`: the conflict queue as a list, and one conflict as sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

import click

from cdc_merge.cli.conflict_groups import (
    DIMENSIONS,
    dimensions_of,
    every_conflict,
    groups_of,
    print_groups,
    refuse_unknown_names,
)
from cdc_merge.cli.context import Invocation, print_json
from cdc_merge.cli.read_client import open_queries
from cdc_merge.cli.record import show_history, show_record
from cdc_merge.cli.table_output import output_option, print_table, say
from cdc_merge.errors import NotFound
from cdc_merge.model import Conflict
from cdc_merge.queries.cell_text import ABSENT, shown
from cdc_merge.queries.document_schemas import Kind
from cdc_merge.queries.documents import Document, Fields, conflict_json, page_json
from cdc_merge.queries.port import QueryPort
from cdc_merge.queries.responses import conflict_document

HEADINGS = ("ID", "STATUS", "SEVERITY", "ENTITY", "KEY", "FIELD", "KIND", "RAISED", "CANDIDATES")
SEVERITIES = ("critical", "high", "medium", "low")
PAGE = 500
# A screen; the cursor leads on.
DEFAULT_LIST = 50
LARGEST_LIST = 10_000
# So many stamps of a candidate's causal context are printed; the rest is counted.
LISTED_STAMPS = 3


@click.group("conflicts")
def command() -> None:
    """The conflict queue: open conflicts that wait for a decision, and how the others were closed."""


@command.command("list")
@click.option("--status", type=click.Choice(["settling", "open", "closed"]), help="Only conflicts with this status.")
@click.option("--entity", help="Only of this entity.")
@click.option("--key", help="Only of this record.")
@click.option("--field", help="Only of this field.")
@click.option(
    "--kind", type=click.Choice(get_args(Kind)), metavar="KIND", help="Only of this kind, such as concurrent_update."
)
@click.option("--severity", type=click.Choice(SEVERITIES), help="Only of this severity.")
@click.option("--source", help="Only conflicts with a candidate of this source.")
@click.option("--cursor", help="Continue after this cursor: the next_cursor of an earlier list.")
@click.option(
    "--limit",
    type=click.IntRange(1, LARGEST_LIST),
    default=DEFAULT_LIST,
    show_default=True,
    help="Print at most so many.",
)
@click.option("--label", help="Only with this label, such as baseline.")
@click.option(
    "--group-by",
    metavar="NAME,…",
    callback=lambda _context, _option, text: dimensions_of(text),
    help=f"Count conflicts instead, the most frequent first, by: {', '.join(DIMENSIONS)}.",
)
@output_option
@click.pass_obj
def list_conflicts(invocation: Invocation, /, cursor: str | None, limit: int, **options: Any) -> None:
    """All conflicts, newest last; `--status open` lists those that wait for a decision, `--group-by` what they have in
    common."""
    label, dimensions = options.pop("label"), options.pop("group_by")
    where: dict[str, str] = {name: wanted for name, wanted in options.items() if wanted is not None}
    queries = open_queries(invocation)
    refuse_unknown_names(invocation, queries, where)
    if dimensions:
        every = every_conflict(queries, where, cursor, label)
        print_groups(invocation, groups_of(every, dimensions), dimensions, limit)
        return
    conflicts, next_cursor = _read_pages(queries, where, cursor, limit, label)
    if invocation.as_json:
        print_json(page_json([conflict_json(conflict) for conflict in conflicts], next_cursor))
        return
    print_table(HEADINGS, [_row(conflict) for conflict in conflicts])
    if next_cursor is not None:
        click.echo(f"More conflicts follow: --cursor {next_cursor}", err=True)
        click.echo("What they have in common: --group-by field,pair", err=True)
    elif not conflicts:
        click.echo("No conflict matches.", err=True)


@command.command("show")
@click.argument("conflict_id", metavar="[ID]", required=False)
@click.option("--entity", help="Without an ID: the oldest open conflict of this entity.")
@click.option("--severity", type=click.Choice(SEVERITIES), help="Without an ID: the oldest open one of this severity.")
@click.option("--history", "with_history", is_flag=True, help="Print the record and its history as well.")
@output_option
@click.pass_context
def show_conflict(
    context: click.Context, /, conflict_id: str | None, *, with_history: bool, **filters: str | None
) -> None:
    """One conflict: who wrote what, when, and which writes each writer had seen. Without an ID the oldest open one."""
    invocation = context.find_object(Invocation)
    assert invocation is not None
    if invocation.as_json and with_history:
        raise click.UsageError("--history prints text only; use cdc-merge record history for JSON.")
    where = {name: wanted for name, wanted in filters.items() if wanted is not None}
    if conflict_id is not None and where:
        raise click.UsageError("Give either an ID, or --entity and --severity.")
    queries = open_queries(invocation)
    refuse_unknown_names(invocation, queries, where)
    document = conflict_document(queries, conflict_id or _oldest_open(queries, where))
    if invocation.as_json:
        print_json(document)
        return
    for line in sentences(document):
        say(line)
    if with_history:
        record = {"entity": document["entity"], "key": document["key"]}
        for subcommand in (show_record, show_history):
            say("")
            defaults = {option.name: None for option in subcommand.params if option.expose_value}
            context.invoke(subcommand, **{**defaults, **record})


def _oldest_open(queries: QueryPort, where: Mapping[str, str]) -> str:
    conflicts = queries.conflicts({"status": "open", **where}, None, 1).items
    if not conflicts:
        raise NotFound("No open conflict matches.", hint="List all with `cdc-merge conflicts list`.")
    return conflicts[0].id


def _read_pages(
    queries: QueryPort, where: Mapping[str, str], cursor: str | None, limit: int, label: str | None
) -> tuple[list[Conflict], str | None]:
    """At most `limit` conflicts, read page by page, and the cursor of the next one."""
    conflicts: list[Conflict] = []
    while True:
        page = queries.conflicts(where, cursor, min(PAGE, limit - len(conflicts)))
        conflicts += [each for each in page.items if label is None or label in each.detected.labels]
        cursor = page.next_cursor
        if cursor is None or len(conflicts) >= limit:
            return conflicts, cursor


def _row(conflict: Conflict) -> tuple[str, ...]:
    document = conflict_json(conflict)
    candidates = _members(document, "candidates")
    names = ("id", "status", "severity", "entity", "key")
    return (
        *(shown(document[name]) for name in names),
        _subject(document) or ABSENT,
        conflict.detected.kind,
        shown(document["raised_at"]),
        "\n".join(f"{_origin(each)}: {_action(each, conflict.detected.kind)}" for each in candidates),
    )


# ---------------------------------------------------------------- one conflict as sentences


def sentences(conflict: Fields) -> Iterator[str]:
    """A conflict document as sentences."""
    kind = shown(conflict["kind"])
    subject = f", {_subject(conflict)}" if _subject(conflict) else ""
    yield f"{shown(conflict['entity'])} {shown(conflict['key'])}{subject}: {kind}"
    status = f"{shown(conflict['severity'])}, {shown(conflict['status'])}, revision {shown(conflict['revision'])}"
    yield f"  {status}{_labels(conflict)}"
    yield from _dates(conflict)
    keys = conflict.get("records")
    if isinstance(keys, list):
        yield f"  About {len(keys)} record{'s' if len(keys) > 1 else ''}: {', '.join(map(shown, keys))}."
    yield ""
    candidates = _members(conflict, "candidates")
    for candidate in candidates:
        yield from _candidate_lines(candidate, kind, candidates)
    yield ""
    yield from _current_values(conflict)
    yield f"  {_suggestion(conflict['suggestion'])}"


def _current_values(conflict: Fields) -> Iterator[str]:
    """The base value, and the provisional value until the decision."""
    if "records" in conflict:
        yield "  Until the decision, rows and records stay separate."
        return
    yield f"  Base value: {_value(conflict['base'])}." if "base" in conflict else "  No common base value."
    if conflict.get("provisional") is not None or (_subject(conflict) and "provisional" in conflict):
        yield f"  Provisional value until the decision: {_value(conflict['provisional'])}."


def _members(document: Fields, name: str) -> Sequence[Fields]:
    members = document[name]
    return [member for member in members if isinstance(member, dict)] if isinstance(members, list) else []


def _subject(conflict: Fields) -> str:
    subject = conflict["group"] or conflict["field"]
    return subject if isinstance(subject, str) else ""


def _labels(conflict: Fields) -> str:
    labels = conflict["labels"]
    return f", labelled {', '.join(map(shown, labels))}" if isinstance(labels, list) and labels else ""


def _dates(conflict: Fields) -> Iterator[str]:
    yield f"  Raised {shown(conflict['raised_at'])}" + (f" by {shown(conflict['rule'])}." if conflict["rule"] else ".")
    if conflict["announced_at"] is not None:
        yield f"  Announced {shown(conflict['announced_at'])}."
    if conflict["closed_at"] is not None:
        yield f"  Closed {shown(conflict['closed_at'])}: {shown(conflict['resolution'])}."


def _origin(candidate: Fields) -> str:
    """The source, with the record's key where the conflict is about several records."""
    source = shown(candidate["source"])
    return f"{shown(candidate['key'])} in {source}" if "key" in candidate else source


def _candidate_lines(candidate: Fields, kind: str, candidates: Sequence[Fields]) -> Iterator[str]:
    actor = "unknown actor" if candidate["actor"] is None else shown(candidate["actor"])
    yield f"  {_origin(candidate)}: {actor} {_action(candidate, kind)} at {shown(candidate['committed_at'])}."
    if "key" not in candidate:
        yield f"    {_causal_context(candidate, candidates)}"
    place = candidate["place"]
    where = f", {shown(place['table'])} at {shown(place['lsn'])}" if isinstance(place, dict) else ""
    yield f"    stamp {shown(candidate['stamp'])}{where}"


def _action(candidate: Fields, kind: str) -> str:
    """A candidate's write as a predicate."""
    if "value" not in candidate:
        return "removed the map key"
    value = candidate["value"]
    if kind == "update_delete" and value is None:
        return "deleted the row"
    if isinstance(value, dict):
        return "set " + ", ".join(f"{name} to {_value(member)}" for name, member in value.items())
    if kind == "key_change":
        return f"changed the business key to {_value(value)}"
    by = f" (a change by {shown(candidate['delta'])})" if "delta" in candidate else ""
    return f"wrote {_value(value)}{by}"


def _causal_context(candidate: Fields, candidates: Sequence[Fields]) -> str:
    seen = candidate["seen"]
    stamps = [shown(stamp) for stamp in seen] if isinstance(seen, list) else []
    others = {shown(each["stamp"]): shown(each["source"]) for each in candidates if each is not candidate}
    rivals = [f"the write of {others[stamp]} in this conflict" for stamp in stamps if stamp in others]
    earlier = [stamp for stamp in stamps if stamp not in others]
    listed = [*rivals, *earlier[:LISTED_STAMPS]]
    if not listed:
        return "It had seen no other write."
    more = len(earlier) - LISTED_STAMPS
    return f"It had seen {', '.join(listed)}" + (f" and {more} more." if more > 0 else ".")


def _value(value: Document) -> str:
    return f"“{value}”" if isinstance(value, str) else shown(value)


def _suggestion(suggestion: Document) -> str:
    if not isinstance(suggestion, dict):
        return "No suggestion."
    return f"Suggested: {shown(suggestion['choose'])}, because {shown(suggestion['reason'])}"
