"""`cdc-merge source pause`, `resume`, `resync`: a command to the API of the running sidecar. Without one it is saved in
the store, and the next start carries it out."""

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
from cdc_merge.queries.documents import Fields
from cdc_merge.queries.source_documents import orders_json
from cdc_merge.worker.ingest import SourceIngest
from cdc_merge.worker.source_control import request_resync

POLL_EVERY_S = 0.5

Change = Callable[[SourceIngest], None]

dry_run_option = click.option("--dry-run", is_flag=True, help="Print what would be done; change nothing.")


@click.command("pause")
@click.argument("name")
@dry_run_option
@click.pass_obj
def pause(invocation: Invocation, name: str, *, dry_run: bool) -> None:
    """Stop reading a source until `resume`, across restarts. Its slot stays, and its server keeps the WAL."""
    _check_source(invocation, name, "would be paused: its server keeps WAL until it is resumed", dry_run=dry_run)
    if not dry_run:
        _send_command(invocation, name, "pause", {}, lambda ingest: _set_paused(ingest, paused=True))


@click.command("resume")
@click.argument("name")
@dry_run_option
@click.pass_obj
def resume(invocation: Invocation, name: str, *, dry_run: bool) -> None:
    """Resume reading a paused source after the last change that is merged and on disk."""
    _check_source(invocation, name, "would be resumed", dry_run=dry_run)
    if not dry_run:
        _send_command(invocation, name, "resume", {}, lambda ingest: _set_paused(ingest, paused=False))


@click.command("resync")
@click.argument("name")
@click.option("--table", help="Only this table, as SCHEMA.TABLE. [default: every mapped table]")
@click.option("--key", help="Only the record with this business key.")
@click.option("--wait", is_flag=True, help="Wait until it is done, and show progress.")
@dry_run_option
@click.pass_obj
def resync(invocation: Invocation, name: str, table: str | None, key: str | None, *, wait: bool, dry_run: bool) -> None:  # noqa: PLR0913, PLR0917 - one parameter an option
    """Incremental snapshot of tables while the stream continues, without locks. A difference is recorded as an observed
    value, not as an edit; a missing row ends its record. A source that lost its position gets a new initial snapshot."""
    what = f"record {key} of " if key is not None else ""
    _check_source(invocation, name, f"would re-read {what}{table or 'every mapped table'}", dry_run=dry_run)
    if dry_run:
        return
    body = {"table": table, "key": key}
    _send_command(
        invocation, name, "resync", body, lambda ingest: request_resync(ingest, table, key, time.time_ns() // 1000)
    )
    if wait:
        _wait(load_settings(invocation), name)


def _check_source(invocation: Invocation, name: str, effect: str, *, dry_run: bool) -> None:
    """NotFound unless the configuration has the source. In a dry run the effect is printed."""
    settings = load_settings(invocation)
    if name not in settings.sources:
        names = ", ".join(sorted(settings.sources))
        raise NotFound(f"There is no source {name}.", hint=f"The configuration has: {names}.")
    if dry_run:
        click.echo(f"Source {name} {effect}.", err=True)


def _send_command(invocation: Invocation, name: str, command: str, body: Mapping[str, object], change: Change) -> None:
    settings = load_settings(invocation)
    state = post_command(settings, f"/api/v1/sources/{quote(name, safe='')}/{command}", body)
    is_saved = state is None
    if state is None:
        state = _save_command(settings, name, change)
    if invocation.as_json:
        print_json(state)
        return
    when = " at the next start of the sidecar" if is_saved else ""
    click.echo(f"Source {name}: {_state_text(state)}{when}.", err=True)


def _state_text(state: Fields) -> str:
    resyncs = state.get("resyncs")
    count = len(resyncs) if isinstance(resyncs, list) else 0
    if state.get("paused"):
        return "paused (its server keeps WAL)"
    return f"reading, {count} table(s) to re-read" if count else "reading"


def _save_command(settings: Settings, name: str, change: Change) -> Fields:
    """Saves the command in the store for the next start. StoreUnavailable when another process has the store open."""
    # Imported on use: the stores' packages would slow down `--help`.
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


def _set_paused(ingest: SourceIngest, *, paused: bool) -> None:
    ingest.resyncs.replace_orders(ingest.resyncs.orders._replace(paused=paused))


# ---------------------------------------------------------------- progress


def _wait(settings: Settings, name: str) -> None:
    with _progress() as show:
        while True:
            source = _source_state(settings, name)
            resyncs = source.get("resyncs")
            running = [each for each in resyncs if isinstance(each, dict)] if isinstance(resyncs, list) else []
            failed = [each for each in running if each["state"] == "failed"]
            if failed:
                raise CdcMergeError(f"The resync of table {failed[0]['table']} failed: {failed[0]['problem']}")
            if not running and not _is_copying(source):
                return
            show(source, running)
            time.sleep(POLL_EVERY_S)


def _source_state(settings: Settings, name: str) -> Fields:
    document = fetch_sources(settings)
    items = document.get("items") if document is not None else None
    for item in items if isinstance(items, list) else []:
        if isinstance(item, dict) and item.get("name") == name:
            return item
    raise CdcMergeError("No sidecar is running.", hint="The command is saved; start the sidecar with `cdc-merge run`.")


def _is_copying(source: Fields) -> bool:
    snapshot = source.get("snapshot")
    return isinstance(snapshot, dict) and snapshot["state"] == "running"


@contextmanager
def _progress() -> Iterator[Callable[[Fields, list[Fields]], None]]:
    """A progress bar per table on a terminal; elsewhere nothing, the metrics show it."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("rows"))
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        tasks = {"": progress.add_task("copy", visible=False, total=None)}

        def show(source: Fields, running: list[Fields]) -> None:
            snapshot = source.get("snapshot")
            if _is_copying(source) and isinstance(snapshot, dict):
                progress.update(
                    tasks[""], visible=True, completed=_number(snapshot, "rows"), total=_number(snapshot, "expected")
                )
            for each in running:
                table, state = str(each["table"]), str(each["state"])
                if table not in tasks:
                    tasks[table] = progress.add_task(table, total=None)
                text = f"{table}: looking for missing rows" if state == "missing" else table
                progress.update(
                    tasks[table], description=text, completed=_number(each, "rows"), total=_number(each, "expected")
                )

        yield show


def _number(document: Fields, name: str) -> int | None:
    """None where there is no number, and for 0."""
    number = document.get(name)
    return number if isinstance(number, int) and number else None
