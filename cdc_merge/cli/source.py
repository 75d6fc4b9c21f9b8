"""`cdc-merge source`: state and progress of the sources, their grants and their slots."""

from __future__ import annotations

import time

import click

from cdc_merge.cli.context import Invocation, print_json
from cdc_merge.cli.read_client import fetch_sources, load_settings, open_queries
from cdc_merge.cli.slot_commands import create_slot, drop_slot, grants
from cdc_merge.cli.source_actions import pause, resume, resync
from cdc_merge.cli.table_output import output_option, print_table
from cdc_merge.queries.cell_text import ABSENT, cell_of
from cdc_merge.queries.documents import Document, Fields
from cdc_merge.queries.responses import sources_document

HEADINGS = ("SOURCE", "STATE", "MERGED UP TO", "LAG", "LAST COMMIT", "SNAPSHOT", "PARKED", "SLOT", "PROBLEM")


@click.group("source")
def command() -> None:
    """The sources and their slots."""


for _command in (grants, create_slot, drop_slot, pause, resume, resync):
    command.add_command(_command)


@command.command("list")
@output_option
@click.pass_obj
def list_sources(invocation: Invocation) -> None:
    """Each source: state, merged position, lag, slot, problem.

    The state of a running sidecar; without one, the state in the store.
    """
    document = fetch_sources(load_settings(invocation))
    if document is None:
        if not invocation.as_json:
            click.echo("No running sidecar was contacted; showing stored state.", err=True)
        document = sources_document(open_queries(invocation), time.time_ns() // 1000)
    if invocation.as_json:
        print_json(document)
    else:
        items = document["items"]
        assert isinstance(items, list)
        print_table(HEADINGS, [_row(item) for item in items if isinstance(item, dict)])


def _row(source: Fields) -> tuple[str, ...]:
    return (
        cell_of(source, "name"),
        "paused" if source.get("paused") else cell_of(source, "state"),
        cell_of(source, "durable_lsn"),
        _lag(source),
        cell_of(source, "last_commit_at"),
        _snapshot(source),
        cell_of(source, "parked"),
        _slot(source.get("slot")),
        cell_of(source, "problem"),
    )


def _lag(source: Fields) -> str:
    units = (("lag_bytes", "bytes"), ("lag_seconds", "s"))
    return (
        ", ".join(f"{cell_of(source, name)} {unit}" for name, unit in units if source.get(name) is not None) or ABSENT
    )


def _snapshot(source: Fields) -> str:
    snapshot, resyncs = source.get("snapshot"), source.get("resyncs")
    for each in resyncs if isinstance(resyncs, list) else []:
        if isinstance(each, dict):
            return f"resync {cell_of(each, 'table')}: {cell_of(each, 'state')}, {cell_of(each, 'rows')} rows"
    if not isinstance(snapshot, dict):
        return ABSENT
    if snapshot["state"] != "running":
        return cell_of(snapshot, "state")
    return f"running, {cell_of(snapshot, 'rows')} of about {cell_of(snapshot, 'expected')} rows"


def _slot(slot: Document) -> str:
    if not isinstance(slot, dict):
        return ABSENT
    return f"{cell_of(slot, 'name')} ({slot['wal_status']})" if slot["wal_status"] else cell_of(slot, "name")
