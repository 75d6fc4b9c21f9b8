"""`cdc-merge uninstall`: nothing of ours is left at the sources, and that is proved.

Our slots are dropped when asked for; publication and role belong to the DBA, so the SQL for them is printed only.
"""

from __future__ import annotations

from collections.abc import Sequence

import click

from cdc_merge.cli.context import Invocation, print_json
from cdc_merge.cli.doctor import EDGE_CODES, PROBLEMS, chosen
from cdc_merge.cli.read_client import load_settings
from cdc_merge.cli.slot_commands import of_dsn
from cdc_merge.cli.table_output import output_option, printable
from cdc_merge.doctor import slot_lifecycle
from cdc_merge.doctor.grants import removal
from cdc_merge.doctor.slot_lifecycle import Left
from cdc_merge.doctor.source_facts import Subject
from cdc_merge.errors import CdcMergeError
from cdc_merge.queries.documents import Document


@click.command("uninstall")
@click.option("--source", "names", multiple=True, metavar="NAME", help="Only this source; may be repeated.")
@click.option("--verify", is_flag=True, help="Drop nothing; tell whether anything of ours is left.")
@click.option("--dry-run", is_flag=True, help="Show the SQL instead of running it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@output_option
@click.pass_obj
def command(invocation: Invocation, /, names: tuple[str, ...], **flags: bool) -> int:
    """Drop the sidecar's slots at the sources, prove that nothing of it is left, and print the SQL for the rest.

    Exit code 0 when nothing is left, 4 when something is, 69 or 77 when a source could not be asked.
    """
    patients = chosen(load_settings(invocation), names)
    if not flags["verify"]:
        for subject, dsn in patients:
            _drop(subject, dsn, dry_run=flags["dry_run"], yes=flags["yes"])
    found, silent = _left(patients)
    if invocation.as_json:
        print_json(_document(patients, found, silent))
    else:
        _print(patients, found)
    for error in silent.values():
        click.echo(f"cdc-merge: {error}\n  {error.hint}", err=True)
    if silent:
        return max(error.exit_code if error.exit_code in EDGE_CODES else PROBLEMS for error in silent.values())
    return PROBLEMS if any(found.values()) else 0


def _drop(subject: Subject, dsn: str, *, dry_run: bool, yes: bool) -> None:
    """Drop one source's slot where it can be dropped; what cannot is told by the verification."""
    try:
        with slot_lifecycle.asking(subject, dsn) as connection:
            slot_lifecycle.check_droppable(subject, slot_lifecycle.slot_at(subject, connection))
        if dry_run:
            click.echo(f"-- {subject.source}\n{slot_lifecycle.removal(subject)}", err=True)
            return
        if yes or click.confirm(f"Drop slot {subject.slot} of {subject.source}?", err=True):
            slot_lifecycle.drop(subject, dsn)
            click.echo(f"{subject.source}: slot {subject.slot} is dropped.", err=True)
    except CdcMergeError as error:
        click.echo(f"{error} {error.hint}", err=True)


def _left(patients: Sequence[tuple[Subject, str]]) -> tuple[dict[str, list[Left]], dict[str, CdcMergeError]]:
    found: dict[str, list[Left]] = {}
    silent: dict[str, CdcMergeError] = {}
    for subject, dsn in patients:
        try:
            found[subject.source] = slot_lifecycle.left_at(subject, dsn)
        except CdcMergeError as error:
            silent[subject.source] = error
    return found, silent


def _print(patients: Sequence[tuple[Subject, str]], found: dict[str, list[Left]]) -> None:
    for subject, dsn in patients:
        if subject.source not in found:
            continue
        left = found[subject.source]
        click.echo(
            f"-- {subject.source}: " + ("something of ours is left:" if left else "no slot and no session of ours.")
        )
        for each in left:
            click.echo(printable(f"--   {each.what}: {each.sql}"))
        click.echo("-- What only its DBA removes:")
        for line in removal(subject, *of_dsn(subject, dsn))[1:]:
            click.echo(printable(line))


def _document(
    patients: Sequence[tuple[Subject, str]], found: dict[str, list[Left]], silent: dict[str, CdcMergeError]
) -> Document:
    return {
        "items": [
            {
                "source": subject.source,
                "asked": subject.source not in silent,
                "left": [{"what": left.what, "sql": left.sql} for left in found.get(subject.source, [])],
                "sql": [*removal(subject, *of_dsn(subject, dsn))[1:]],
            }
            for subject, dsn in patients
        ],
        "next_cursor": None,
    }
