"""`cdc-merge conflicts`: the queue, as a list and one by one, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import click

from cdc_merge.cli.context import Invocation, print_json
from cdc_merge.cli.read_client import open_queries
from cdc_merge.cli.record import show_history, show_record
from cdc_merge.cli.table_output import output_option, print_table, say
from cdc_merge.errors import NotFound
from cdc_merge.model import Conflict
from cdc_merge.queries.cell_text import ABSENT, shown
from cdc_merge.queries.documents import Document, Fields, conflict_json, page_json
from cdc_merge.queries.port import QueryPort
from cdc_merge.queries.responses import conflict_document

HEADINGS = ("ID", "STATUS", "SEVERITY", "ENTITY", "KEY", "FIELD", "KIND", "RAISED", "CANDIDATES")
SEVERITIES = ("critical", "high", "medium", "low")
PAGE = 500
# What one list prints at most; more is for programs, which page.
LARGEST_LIST = 10_000
# Stamps of what a writer had seen that are spelled out; the rest is counted.
SPELLED_OUT = 3


@click.group("conflicts")
def command() -> None:
    """The queue of conflicts: what waits for an answer, and what became of the rest."""


@command.command("list")
@click.option("--status", type=click.Choice(["settling", "open", "closed"]), help="Only these.")
@click.option("--entity", help="Only of this entity.")
@click.option("--key", help="Only of this record.")
@click.option("--field", help="Only of this field.")
@click.option("--kind", help="Only of this kind, such as concurrent_update.")
@click.option("--severity", type=click.Choice(SEVERITIES), help="Only of this severity.")
@click.option("--source", help="Only those that this source has a candidate in.")
@click.option("--cursor", help="Go on after this conflict; the next_cursor of an earlier list.")
@click.option("--limit", type=click.IntRange(1, LARGEST_LIST), default=LARGEST_LIST, show_default=True, help="At most.")
@output_option
@click.pass_obj
def list_conflicts(invocation: Invocation, /, cursor: str | None, limit: int, **filters: str | None) -> None:
    """All conflicts, newest last; `--status open` are those that wait for an answer."""
    where = {name: wanted for name, wanted in filters.items() if wanted is not None}
    conflicts, next_cursor = _listed(open_queries(invocation), where, cursor, limit)
    if invocation.as_json:
        print_json(page_json([conflict_json(conflict) for conflict in conflicts], next_cursor))
        return
    print_table(HEADINGS, [_row(conflict) for conflict in conflicts])
    if next_cursor is not None:
        click.echo(f"There are more: --cursor {next_cursor}", err=True)
    elif not conflicts:
        click.echo("No conflict matches.", err=True)


@command.command("show")
@click.argument("conflict_id", metavar="[ID]", required=False)
@click.option("--entity", help="Without an ID: the oldest open conflict of this entity.")
@click.option("--severity", type=click.Choice(SEVERITIES), help="Without an ID: the oldest open one of this severity.")
@click.option("--history", "with_history", is_flag=True, help="The record as well, and everything that happened to it.")
@output_option
@click.pass_context
def show_conflict(
    context: click.Context, /, conflict_id: str | None, *, with_history: bool, **filters: str | None
) -> None:
    """One conflict in words: who wrote what, when, and what each had seen. Without an ID the oldest one that is open."""
    invocation = context.find_object(Invocation)
    assert invocation is not None
    if invocation.as_json and with_history:
        raise click.UsageError("--history is for people; programs ask cdc-merge record history.")
    where = {name: wanted for name, wanted in filters.items() if wanted is not None}
    if conflict_id is not None and where:
        raise click.UsageError("An ID names one conflict; --entity and --severity are for when there is none.")
    reading = open_queries(invocation)
    document = conflict_document(reading, conflict_id or _oldest(reading, where))
    if invocation.as_json:
        print_json(document)
        return
    for line in in_words(document):
        say(line)
    if with_history:
        record = {"entity": document["entity"], "key": document["key"]}
        for told in (show_record, show_history):
            say("")
            defaults = {name.name: None for name in told.params if name.expose_value}
            context.invoke(told, **{**defaults, **record})


def _oldest(reading: QueryPort, where: Mapping[str, str]) -> str:
    found = reading.conflicts({"status": "open", **where}, None, 1).items
    if not found:
        raise NotFound("No open conflict matches.", hint="cdc-merge conflicts list shows those that are closed.")
    return found[0].id


def _listed(
    reading: QueryPort, where: Mapping[str, str], cursor: str | None, limit: int
) -> tuple[list[Conflict], str | None]:
    """At most `limit` conflicts, page by page, and the cursor of what follows."""
    found: list[Conflict] = []
    while True:
        page = reading.conflicts(where, cursor, min(PAGE, limit - len(found)))
        found += page.items
        cursor = page.next_cursor
        if cursor is None or len(found) >= limit:
            return found, cursor


def _row(conflict: Conflict) -> tuple[str, ...]:
    document = conflict_json(conflict)
    candidates = _members(document, "candidates")
    names = ("id", "status", "severity", "entity", "key")
    return (
        *(shown(document[name]) for name in names),
        _subject(document) or ABSENT,
        conflict.detected.kind,
        shown(document["raised_at"]),
        "\n".join(f"{_whose(each)}: {_answer(each, conflict.detected.kind)}" for each in candidates),
    )


# ---------------------------------------------------------------- one conflict in words


def in_words(conflict: Fields) -> Iterator[str]:
    """A conflict document as sentences."""
    kind = shown(conflict["kind"])
    yield f"{shown(conflict['entity'])} {shown(conflict['key'])}{_of_subject(conflict)}: {kind}"
    standing = f"{shown(conflict['severity'])}, {shown(conflict['status'])}, revision {shown(conflict['revision'])}"
    yield f"  {standing}{_labels(conflict)}"
    yield from _life(conflict)
    yield from _records(conflict)
    yield ""
    candidates = _members(conflict, "candidates")
    for candidate in candidates:
        yield from _who_wrote(candidate, kind, candidates)
    yield ""
    yield from _meanwhile(conflict)
    yield f"  {_suggestion(conflict['suggestion'])}"


def _meanwhile(conflict: Fields) -> Iterator[str]:
    """What was before, and what stands until somebody decides."""
    if "records" in conflict:
        yield "  Until it is decided, each row and each record stands for itself."
        return
    yield (
        f"  Before that it was {_value(conflict['base'])}."
        if "base" in conflict
        else "  No common value before is known."
    )
    if conflict.get("provisional") is not None or (_subject(conflict) and "provisional" in conflict):
        yield f"  Until it is decided, it reads {_value(conflict['provisional'])}."


def _members(document: Fields, name: str) -> Sequence[Fields]:
    members = document[name]
    return [member for member in members if isinstance(member, dict)] if isinstance(members, list) else []


def _subject(conflict: Fields) -> str:
    subject = conflict["group"] or conflict["field"]
    return subject if isinstance(subject, str) else ""


def _of_subject(conflict: Fields) -> str:
    return f", {_subject(conflict)}" if _subject(conflict) else ""


def _labels(conflict: Fields) -> str:
    labels = conflict["labels"]
    return f", labelled {', '.join(map(shown, labels))}" if isinstance(labels, list) and labels else ""


def _life(conflict: Fields) -> Iterator[str]:
    yield f"  Raised {shown(conflict['raised_at'])}" + (f" by {shown(conflict['rule'])}." if conflict["rule"] else ".")
    if conflict["announced_at"] is not None:
        yield f"  Announced {shown(conflict['announced_at'])}."
    if conflict["closed_at"] is not None:
        yield f"  Closed {shown(conflict['closed_at'])}: {shown(conflict['resolution'])}."


def _records(conflict: Fields) -> Iterator[str]:
    keys = conflict.get("records")
    if isinstance(keys, list):
        yield f"  About {len(keys)} record{'s' if len(keys) > 1 else ''}: {', '.join(map(shown, keys))}."


def _whose(candidate: Fields) -> str:
    """The source, and the record where several are asked about."""
    source = shown(candidate["source"])
    return f"{shown(candidate['key'])} in {source}" if "key" in candidate else source


def _who_wrote(candidate: Fields, kind: str, candidates: Sequence[Fields]) -> Iterator[str]:
    who = "somebody unknown" if candidate["actor"] is None else shown(candidate["actor"])
    yield f"  {_whose(candidate)}: {who} {_answer(candidate, kind)} at {shown(candidate['committed_at'])}."
    if "key" not in candidate:
        yield f"    {_had_seen(candidate, candidates)}"
    place = candidate["place"]
    where = f", {shown(place['table'])} at {shown(place['lsn'])}" if isinstance(place, dict) else ""
    yield f"    stamp {shown(candidate['stamp'])}{where}"


def _answer(candidate: Fields, kind: str) -> str:
    """What a candidate did, as a predicate."""
    if "value" not in candidate:
        return "took the key away"
    value = candidate["value"]
    if kind == "update_delete" and value is None:
        return "deleted the row"
    if isinstance(value, dict):
        return "set " + ", ".join(f"{name} to {_value(member)}" for name, member in value.items())
    if kind == "key_change":
        return f"moved it to the key {_value(value)}"
    by = f" (a change by {shown(candidate['delta'])})" if "delta" in candidate else ""
    return f"wrote {_value(value)}{by}"


def _had_seen(candidate: Fields, candidates: Sequence[Fields]) -> str:
    seen = candidate["seen"]
    stamps = [shown(stamp) for stamp in seen] if isinstance(seen, list) else []
    others = {shown(each["stamp"]): shown(each["source"]) for each in candidates if each is not candidate}
    known = [f"the write of {others[stamp]} here" for stamp in stamps if stamp in others]
    earlier = [stamp for stamp in stamps if stamp not in others]
    spelled = [*known, *earlier[:SPELLED_OUT]]
    if not spelled:
        return "It had seen no other write."
    more = len(earlier) - SPELLED_OUT
    return f"It had seen {', '.join(spelled)}" + (f" and {more} more." if more > 0 else ".")


def _value(value: Document) -> str:
    return f"“{value}”" if isinstance(value, str) else shown(value)


def _suggestion(suggestion: Document) -> str:
    if not isinstance(suggestion, dict):
        return "There is no suggestion."
    return f"Suggested: {shown(suggestion['choose'])}, because {shown(suggestion['reason'])}"
