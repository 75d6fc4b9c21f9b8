"""`cdc-merge record`: one record: merged value, history, and the explanation of a field's value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import click

from cdc_merge.cli import restore
from cdc_merge.cli.context import Invocation, print_json
from cdc_merge.cli.read_client import open_queries
from cdc_merge.cli.table_output import output_option, print_table, say
from cdc_merge.model import RecordKey
from cdc_merge.queries.cell_text import ABSENT, cell_of, items, objects, shown, word_of
from cdc_merge.queries.documents import Document, Fields, json_text
from cdc_merge.queries.port import QueryPort
from cdc_merge.queries.responses import (
    AsOf,
    explain_document,
    history_document,
    missing_document,
    record_document,
)

HISTORY_HEADINGS = ("STAMP", "COMMITTED", "SOURCE", "KIND", "ACTOR", "CHANGES")
# Changes in memory at a time: a few tens of megabytes. Each page scans the stamps of the whole history once.
HISTORY_PAGE = 10_000
MISSING_HEADINGS = ("KEY", "MISSING IN", "SINCE")
EXPLAIN_HEADINGS = ("STAMP", "SOURCE", "KIND", "BEFORE", "AFTER", "SAW", "OUTCOME", "BECAUSE")


@click.group("record")
def command() -> None:
    """One record. A composite KEY is its parts in mapping order, percent-encoded, joined by commas."""


@command.command("show")
@click.argument("entity")
@click.argument("key")
@click.option("--as-of", callback=restore.parse_moment, help="Show the record as of a stamp or of a time in ISO 8601.")
@output_option
@click.pass_obj
def show_record(invocation: Invocation, entity: str, key: str, as_of: AsOf | None) -> None:
    """The merged value, every source's view, and the conflicts."""
    document = record_document(open_queries(invocation), RecordKey(entity, key), as_of)
    if invocation.as_json:
        print_json(document)
        return
    when = f" as of {document['as_of']}" if document["as_of"] is not None else ""
    say(f"{entity} {key}{when}{' (ended)' if document['deleted'] else ''}")
    views = objects(document, "sources")
    print_table(("FIELD", "MERGED", *(name.upper() for name in views)), [*_rows(document, views)])
    for conflict in items(document, "conflicts"):
        subject = conflict["group"] or conflict["field"] or _all_of(conflict)
        what = f"{shown(conflict['kind'])} of {shown(subject)}, {shown(conflict['status'])}"
        say(f"conflict {shown(conflict['id'])}: {what}")


def _all_of(conflict: Fields) -> str:
    keys = conflict.get("records")
    return ", ".join(map(shown, keys)) if isinstance(keys, list) else "the whole record"


def _rows(document: Fields, views: Mapping[str, Fields]) -> Iterator[tuple[str, ...]]:
    merged = document["merged"]
    assert isinstance(merged, dict)
    by_source = {name: values for name, view in views.items() if isinstance(values := view["values"], dict)}
    for field in dict.fromkeys((*merged, *(field for values in by_source.values() for field in values))):
        yield (field, word_of(merged, field), *(word_of(by_source[name], field) for name in views))
    yield (
        "(presence)",
        "ended" if document["deleted"] else "present",
        *(cell_of(view, "presence") for view in views.values()),
    )
    missing = document["missing"]
    if isinstance(missing, list) and missing:
        yield ("(missing in)", ", ".join(map(shown, missing)), *(ABSENT for _ in views))
    yield ("(last stamp)", ABSENT, *(cell_of(view, "last_stamp") for view in views.values()))


@command.command("history")
@click.argument("entity")
@click.argument("key")
@click.option("--field", help="Only changes that carry this field.")
@click.option("--cursor", help="Continue after this cursor: the next_cursor of an earlier part.")
@click.option("--limit", type=click.IntRange(1), help="Read at most so many changes. [default: all]")
@output_option
@click.pass_obj
def show_history(  # noqa: PLR0913, PLR0917 (an option each)
    invocation: Invocation, entity: str, key: str, field: str | None, cursor: str | None, limit: int | None
) -> None:
    """Every change of the record, in stamp order, printed as it is read."""
    pages = _history(open_queries(invocation), RecordKey(entity, key), cursor, limit)
    changes = (
        (
            [change for change in items(document) if field is None or field in objects(change, "fields")],
            document["next_cursor"],
        )
        for document in pages
    )
    show = _print_history_json if invocation.as_json else _print_history_table
    next_cursor = show(changes)
    if next_cursor is not None and not invocation.as_json:
        click.echo(f"More changes follow: --cursor {shown(next_cursor)}", err=True)


def _history(queries: QueryPort, key: RecordKey, cursor: str | None, limit: int | None) -> Iterator[Fields]:
    """The history's pages as documents, one in memory at a time."""
    while True:
        size = HISTORY_PAGE if limit is None else min(HISTORY_PAGE, limit)
        document = history_document(queries, key, cursor, size)
        limit = None if limit is None else limit - size
        following = document["next_cursor"]
        yield document
        if not isinstance(following, str) or limit == 0:
            return
        cursor = following


def _print_history_json(pages: Iterable[tuple[list[Fields], Document]]) -> Document:
    """One JSON document, written page by page."""
    next_cursor: Document = None
    before = '{"items": ['
    for changes, following in pages:
        if changes:
            click.echo(before + ", ".join(map(json_text, changes)), nl=False)
            before = ", "
        next_cursor = following
    opening = "" if before == ", " else before
    click.echo(opening + f'], "next_cursor": {json_text(next_cursor)}}}')
    return next_cursor


def _print_history_table(pages: Iterable[tuple[list[Fields], Document]]) -> Document:
    next_cursor: Document = None
    for number, (changes, following) in enumerate(pages):
        next_cursor = following
        if changes or number == 0:
            print_table(HISTORY_HEADINGS, [_change(change) for change in changes])
    return next_cursor


def _change(item: Fields) -> tuple[str, ...]:
    changes = [
        f"{name}: {word_of(of, 'before')} → {word_of(of, 'after')}" for name, of in objects(item, "fields").items()
    ]
    moves = [f"{name} {shown(item[name])}" for name in ("moved_to", "moved_from") if name in item]
    columns = (cell_of(item, name) for name in ("stamp", "committed_at", "source", "kind", "actor"))
    return (*columns, "\n".join((*changes, *moves)))


@command.command("missing")
@click.argument("entity")
@click.option("--source", help="Only records missing in this source.")
@click.option("--cursor", help="Continue after this cursor: the next_cursor of an earlier list.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=1_000, show_default=True, help="At most so many records."
)
@output_option
@click.pass_obj
def list_missing(  # noqa: PLR0913, PLR0917 (an option each)
    invocation: Invocation, entity: str, source: str | None, cursor: str | None, limit: int
) -> None:
    """Records missing in a source, for an entity with `on_missing: report`."""
    document = missing_document(open_queries(invocation), entity, source, cursor, limit)
    if invocation.as_json:
        print_json(document)
        return
    rows = items(document)
    print_table(MISSING_HEADINGS, [tuple(cell_of(row, name) for name in ("key", "source", "since")) for row in rows])
    if document["next_cursor"] is not None:
        click.echo(f"More records follow: --cursor {shown(document['next_cursor'])}", err=True)
    elif not rows:
        click.echo("No record is missing, or the entity's on_missing is not report.", err=True)


@command.command("explain")
@click.argument("entity")
@click.argument("key")
@click.option("--field", required=True, help="The field or group to explain; a key of a map as in prefs.city.")
@output_option
@click.pass_obj
def explain_field(invocation: Invocation, entity: str, key: str, field: str) -> None:
    """Why a field has its value: every write, the writes it had seen, and its outcome."""
    document = explain_document(open_queries(invocation), RecordKey(entity, key), field)
    if invocation.as_json:
        print_json(document)
        return
    rule = f", decided by the rule {shown(document['rule'])}" if document["rule"] is not None else ""
    say(f"{entity} {key}, {field} ({shown(document['merge'])}{rule}): {word_of(document, 'value')}")
    print_table(EXPLAIN_HEADINGS, [_write(write) for write in items(document, "writes")])


def _write(write: Fields) -> tuple[str, ...]:
    return (
        *(cell_of(write, name) for name in ("stamp", "source", "kind")),
        word_of(write, "before"),
        word_of(write, "after"),
        _seen_writes(write),
        *(cell_of(write, name) for name in ("outcome", "because")),
    )


def _seen_writes(write: Fields) -> str:
    stamps, earlier = write["saw"], write["saw_earlier"]
    lines = [*map(shown, stamps)] if isinstance(stamps, list) else []
    return "\n".join([f"{shown(earlier)} earlier ones", *lines] if earlier else lines) or ABSENT


command.add_command(restore.command)
