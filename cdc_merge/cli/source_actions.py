"""`cdc-merge source pause`, `resume`, `resync`: a running sidecar is told over its API; without one the store notes it,
and the next start does it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import quote

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from cdc_merge.cli.context import Invocation, print_json
from cdc_merge.cli.read_client import fetch_sources, load_settings
from cdc_merge.cli.write_client import post_command
from cdc_merge.config import Settings
from cdc_merge.errors import CdcMergeError, NotFound
from cdc_merge.queries.documents import Fields, orders_json
from cdc_merge.worker.ingest import SourceIngest
from cdc_merge.worker.source_control import wanted_again

LOOK_EVERY_S = 0.5

Change = Callable[[SourceIngest], None]

dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would be done; nothing is changed.")


@click.command("pause")
@click.argument("name")
@dry_run_option
@click.pass_obj
def pause(invocation: Invocation, name: str, *, dry_run: bool) -> None:
    """Stop reading a source until `resume`, over restarts too. Its slot stays, and its server keeps what comes."""
    _said(invocation, name, "is paused: its server keeps every change until it is resumed", dry_run=dry_run)
    if not dry_run:
        _tell(invocation, name, "pause", {}, _paused)


@click.command("resume")
@click.argument("name")
@dry_run_option
@click.pass_obj
def resume(invocation: Invocation, name: str, *, dry_run: bool) -> None:
    """Go on reading a paused source, behind the last change that is merged and on disk."""
    _said(invocation, name, "goes on", dry_run=dry_run)
    if not dry_run:
        _tell(invocation, name, "resume", {}, _resumed)


@click.command("resync")
@click.argument("name")
@click.option("--table", help="Only this table, SCHEMA.TABLE. [default: every mapped one]")
@click.option("--key", help="Only the record with this business key.")
@click.option("--wait", is_flag=True, help="Show how far it is until it is done.")
@dry_run_option
@click.pass_obj
def resync(invocation: Invocation, name: str, table: str | None, key: str | None, *, wait: bool, dry_run: bool) -> None:  # noqa: PLR0913, PLR0917 - one parameter an option
    """Read tables again while the stream goes on, without locks. What differs is seen beside the history, not as an edit;
    rows that are gone end. Of a source that stopped because its position was lost, a new copy is taken."""
    what = f"record {key} of " if key is not None else ""
    _said(invocation, name, f"reads {what}{table or 'every mapped table'} again", dry_run=dry_run)
    if dry_run:
        return
    body = {"table": table, "key": key}
    _tell(invocation, name, "resync", body, lambda ingest: wanted_again(ingest, table, key, time.time_ns() // 1000))
    if wait:
        _wait(load_settings(invocation), name)


def _said(invocation: Invocation, name: str, words: str, *, dry_run: bool) -> None:
    settings = load_settings(invocation)
    if name not in settings.sources:
        known = ", ".join(sorted(settings.sources))
        raise NotFound(f"There is no source {name}.", hint=f"The configuration has: {known}.")
    if dry_run:
        click.echo(f"Source {name} {words}.", err=True)


def _tell(invocation: Invocation, name: str, what: str, body: Mapping[str, object], change: Change) -> None:
    settings = load_settings(invocation)
    answer = post_command(settings, f"/api/v1/sources/{quote(name, safe='')}/{what}", body)
    is_noted = answer is None
    if answer is None:
        answer = _noted(settings, name, change)
    if invocation.as_json:
        print_json(answer)
        return
    when = " when the sidecar runs again" if is_noted else ""
    click.echo(f"Source {name}: {_words(answer)}{when}.", err=True)


def _words(answer: Fields) -> str:
    resyncs = answer.get("resyncs")
    count = len(resyncs) if isinstance(resyncs, list) else 0
    if answer.get("paused"):
        return "paused; its server keeps every change"
    return f"reads on, {count} table(s) to be read again" if count else "reads on"


def _noted(settings: Settings, name: str, change: Change) -> Fields:
    """No sidecar runs: the store keeps it for the next one. StoreUnavailable when somebody else holds the store."""
    # Imported when it is asked: the stores' packages would slow down `--help`.
    from cdc_merge.app import sidecar  # noqa: PLC0415

    store = sidecar.open_store(settings)
    try:
        store.claim("cdc-merge source")
        ingest = sidecar.ingest_of(settings, name, store)
        change(ingest)
        with store.transaction() as tx:
            ingest.save(tx)
    finally:
        store.close()
    return orders_json(name, ingest.resyncs.orders)


def _paused(ingest: SourceIngest) -> None:
    ingest.resyncs.change(ingest.resyncs.orders._replace(paused=True))


def _resumed(ingest: SourceIngest) -> None:
    ingest.resyncs.change(ingest.resyncs.orders._replace(paused=False))


# ---------------------------------------------------------------- how far it is


def _wait(settings: Settings, name: str) -> None:
    with _progress() as show:
        while True:
            source = _source(settings, name)
            resyncs = source.get("resyncs")
            going = [each for each in resyncs if isinstance(each, dict)] if isinstance(resyncs, list) else []
            failed = [each for each in going if each["state"] == "failed"]
            if failed:
                raise CdcMergeError(f"Table {failed[0]['table']} could not be read again: {failed[0]['problem']}")
            if not going and not _is_copying(source):
                return
            show(source, going)
            time.sleep(LOOK_EVERY_S)


def _source(settings: Settings, name: str) -> Fields:
    document = fetch_sources(settings)
    items = document.get("items") if document is not None else None
    found = (
        [each for each in items if isinstance(each, dict) and each.get("name") == name]
        if isinstance(items, list)
        else []
    )
    if not found:
        raise CdcMergeError("No sidecar runs here.", hint="What was asked for is noted: start it with cdc-merge run.")
    return found[0]


def _is_copying(source: Fields) -> bool:
    snapshot = source.get("snapshot")
    return isinstance(snapshot, dict) and snapshot["state"] == "running"


@contextmanager
def _progress() -> Iterator[Callable[[Fields, list[Fields]], None]]:
    """A bar a table on a terminal, silence elsewhere: there are the metrics."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("rows"))
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        tasks = {"": progress.add_task("copy", visible=False, total=None)}

        def show(source: Fields, going: list[Fields]) -> None:
            snapshot = source.get("snapshot")
            if _is_copying(source) and isinstance(snapshot, dict):
                progress.update(
                    tasks[""], visible=True, completed=_number(snapshot, "rows"), total=_number(snapshot, "expected")
                )
            for each in going:
                table, state = str(each["table"]), str(each["state"])
                if table not in tasks:
                    tasks[table] = progress.add_task(table, total=None)
                words = f"{table}: looking for what is gone" if state == "missing" else table
                progress.update(
                    tasks[table], description=words, completed=_number(each, "rows"), total=_number(each, "expected")
                )

        yield show


def _number(document: Fields, name: str) -> int | None:
    """None for what is not known, 0 included."""
    found = document.get(name)
    return found if isinstance(found, int) and found else None
