"""`cdc-merge record restore`: the plan of bringing a record back to an earlier state. Nothing is written."""

from __future__ import annotations

from collections.abc import Iterator

import click

from cdc_merge.cli.context import Invocation, print_json
from cdc_merge.cli.read_client import open_queries
from cdc_merge.cli.table_output import output_option, print_table, say
from cdc_merge.errors import NotWritten
from cdc_merge.model import RecordKey
from cdc_merge.queries.cell_text import ABSENT, cell_of, shown, word_of
from cdc_merge.queries.documents import Document, Fields
from cdc_merge.queries.responses import AsOf, as_of_from_text, restore_document

DIFFERENCE_HEADINGS = ("FIELD", "NOW", "THEN")
WRITE_HEADINGS = ("SOURCE", "ACTION", "FIELD", "HOLDS", "WOULD HOLD")
EDIT_HEADINGS = ("STAMP", "COMMITTED", "SOURCE", "KIND", "ACTOR", "FIELD", "EDIT", "WOULD BE")
NOT_WRITTEN = "Nothing was written: this version plans a restore and does not execute it."
WRITE_IT = "Use --dry-run to print the plan only; make the changes in the sources themselves: the sidecar reads them."


def parse_moment(_: click.Context, __: click.Parameter, text: str | None) -> AsOf | None:
    try:
        return as_of_from_text(text or "")
    except ValueError as error:
        raise click.BadParameter("give a stamp (WALL_US.COUNTER@SOURCE) or a time in ISO 8601.") from error


@click.command("restore")
@click.argument("entity")
@click.argument("key")
@click.option("--to", "moment", callback=parse_moment, help="A stamp, or a time in ISO 8601.")
@click.option("--to-clean", is_flag=True, help="To the last state without a conflict.")
@click.option("--field", "fields", multiple=True, help="Only this field; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Only show the plan.")
@output_option
@click.pass_obj
def command(  # noqa: PLR0913, PLR0917 (an option each)
    invocation: Invocation,
    entity: str,
    key: str,
    moment: AsOf | None,
    fields: tuple[str, ...],
    to_clean: bool,  # noqa: FBT001 (an option)
    dry_run: bool,  # noqa: FBT001 (an option)
) -> None:
    """The plan of bringing a record back to an earlier state: the differences, the writes per source, and the later
    edits. This version plans only: without --dry-run it ends with exit code 1 and writes nothing.
    """
    if (moment is None) is not to_clean:
        raise click.UsageError("Give either --to or --to-clean.")
    document = restore_document(open_queries(invocation), RecordKey(entity, key), moment, fields)
    if invocation.as_json:
        print_json(document)
    else:
        _print(document)
    if not dry_run and document["writes"]:
        raise NotWritten(NOT_WRITTEN, hint=WRITE_IT)


def _print(document: Fields) -> None:
    say(f"{shown(document['entity'])} {shown(document['key'])} to {shown(document['to'])}")
    print_table(DIFFERENCE_HEADINGS, [*_differences(document)])
    writes = [*_writes(document)]
    if not writes:
        say("Every source holds this state: nothing would be written.")
        return
    say("Would be written:")
    print_table(WRITE_HEADINGS, writes)
    edits = [row for edit in _items(document, "later_edits") for row in _edit(edit)]
    if edits:
        say("Edits since then:")
        print_table(EDIT_HEADINGS, edits)


def _differences(document: Fields) -> Iterator[tuple[str, ...]]:
    deleted = _members(document["deleted"])
    if deleted["now"] != deleted["then"]:
        yield ("(presence)", *("ended" if deleted[when] else "present" for when in ("now", "then")))
    for name, values in _members(document["fields"]).items():
        both = _members(values)
        yield name, word_of(both, "now"), word_of(both, "then")


def _writes(document: Fields) -> Iterator[tuple[str, ...]]:
    for write in _items(document, "writes"):
        what = (shown(write["source"]), shown(write["action"]))
        fields = _members(write["fields"])
        if not fields:
            yield (*what, ABSENT, ABSENT, ABSENT)
        for name, values in fields.items():
            both = _members(values)
            yield (*what, name, word_of(both, "held"), word_of(both, "wanted"))


def _edit(edit: Fields) -> Iterator[tuple[str, ...]]:
    columns = tuple(cell_of(edit, name) for name in ("stamp", "committed_at", "source", "kind", "actor"))
    undone = edit["undone"]
    fields = _members(edit["fields"])
    if not fields:
        yield (*columns, ABSENT, ABSENT, ABSENT)
    for name, values in fields.items():
        both = _members(values)
        effect = "undone" if isinstance(undone, list) and name in undone else "kept"
        yield (*columns, name, f"{word_of(both, 'before')} → {word_of(both, 'after')}", effect)


def _items(document: Fields, name: str) -> list[Fields]:
    items = document[name]
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _members(document: Document) -> Fields:
    return document if isinstance(document, dict) else {}
