"""`cdc-merge uninstall`: drops the sidecar's slots at the sources and verifies that nothing of it is left.

Publication and role belong to the DBA: their SQL is printed only.
"""

from __future__ import annotations

from collections.abc import Sequence

import click

from cdc_merge.cli.context import Invocation, print_json
from cdc_merge.cli.doctor import PROBLEMS, select_sources, worst_exit_code
from cdc_merge.cli.read_client import load_settings
from cdc_merge.cli.slot_commands import of_dsn, own_role
from cdc_merge.cli.table_output import output_option, printable
from cdc_merge.doctor import slot_lifecycle
from cdc_merge.doctor.grants import removal
from cdc_merge.doctor.slot_lifecycle import Remnant
from cdc_merge.doctor.source_facts import Subject
from cdc_merge.errors import CdcMergeError
from cdc_merge.queries.documents import Document


@click.command("uninstall")
@click.option("--source", "names", multiple=True, metavar="NAME", help="Only this source; may be repeated.")
@click.option("--verify", is_flag=True, help="Drop nothing; report what is left of the sidecar.")
@click.option("--dry-run", is_flag=True, help="Show the SQL instead of running it.")
@click.option("--yes", is_flag=True, help="Drop without confirmation.")
@output_option
@click.pass_obj
def command(invocation: Invocation, /, names: tuple[str, ...], **flags: bool) -> int:
    """Drop the sidecar's slots at the sources, verify that nothing of it is left, and print the SQL for the rest.

    Exit code 0 when nothing is left, 4 when something is, 69 or 77 when a source could not be queried.
    """
    targets = select_sources(load_settings(invocation), names)
    if not flags["verify"]:
        for subject, dsn in targets:
            _drop(subject, dsn, dry_run=flags["dry_run"], yes=flags["yes"])
    remains, errors = _query_remains(targets)
    if invocation.as_json:
        print_json(_document(targets, remains, errors))
    else:
        _print(targets, remains)
    for error in errors.values():
        click.echo(f"cdc-merge: {error}\n  {error.hint}", err=True)
    if errors:
        return worst_exit_code(errors.values())
    return PROBLEMS if any(remains.values()) else 0


def _drop(subject: Subject, dsn: str, *, dry_run: bool, yes: bool) -> None:
    """Drop one source's slot; a slot that cannot be dropped is reported by the verification."""
    try:
        with slot_lifecycle.connected(subject, dsn) as connection:
            slot_lifecycle.check_droppable(subject, slot_lifecycle.slot_at(subject, connection))
        if dry_run:
            click.echo(f"-- {subject.source}\n{slot_lifecycle.removal(subject)}", err=True)
            return
        if yes or click.confirm(f"Drop slot {subject.slot} of {subject.source}?", err=True):
            slot_lifecycle.drop(subject, dsn)
            click.echo(f"{subject.source}: slot {subject.slot} is dropped.", err=True)
    except CdcMergeError as error:
        click.echo(f"{error} {error.hint}", err=True)


def _query_remains(targets: Sequence[tuple[Subject, str]]) -> tuple[dict[str, list[Remnant]], dict[str, CdcMergeError]]:
    """By source: what is left of the sidecar, and the error of each source that could not be queried."""
    remains: dict[str, list[Remnant]] = {}
    errors: dict[str, CdcMergeError] = {}
    for subject, dsn in targets:
        try:
            remains[subject.source] = slot_lifecycle.remnants_at(subject, dsn)
        except CdcMergeError as error:
            errors[subject.source] = error
    return remains, errors


def _print(targets: Sequence[tuple[Subject, str]], remains: dict[str, list[Remnant]]) -> None:
    for subject, dsn in targets:
        if subject.source not in remains:
            continue
        remnants = remains[subject.source]
        click.echo(
            f"-- {subject.source}: "
            + ("left by the sidecar:" if remnants else "no slot and no session of the sidecar is left.")
        )
        for remnant in remnants:
            click.echo(printable(f"--   {remnant.what}: {remnant.sql}"))
        click.echo("-- To be removed by the DBA:")
        for line in _for_dba(subject, dsn):
            click.echo(printable(line))
        user, _ = of_dsn(dsn)
        if own_role(user) is None:
            click.echo(printable(f"-- The role {user} stays: drop it only if the sidecar alone uses it."))


def _for_dba(subject: Subject, dsn: str) -> list[str]:
    """The SQL for publication and role; nothing for a role that may belong to people or applications."""
    user, database = of_dsn(dsn)
    return [*removal(subject, own_role(user), database)[1:]]


def _document(
    targets: Sequence[tuple[Subject, str]], remains: dict[str, list[Remnant]], errors: dict[str, CdcMergeError]
) -> Document:
    return {
        "items": [
            {
                "source": subject.source,
                "asked": subject.source not in errors,
                "left": [{"what": remnant.what, "sql": remnant.sql} for remnant in remains.get(subject.source, [])],
                "sql": [*_for_dba(subject, dsn)],
            }
            for subject, dsn in targets
        ],
        "next_cursor": None,
    }
