"""`cdc-merge source grants`, `create-slot`, `drop-slot`: the SQL for a source's DBA, and the sidecar's slot."""

from __future__ import annotations

from dataclasses import replace

import click
import psycopg
from psycopg.conninfo import conninfo_to_dict

from cdc_merge.cli.context import Invocation
from cdc_merge.cli.doctor import select_sources
from cdc_merge.cli.read_client import load_settings
from cdc_merge.cli.table_output import printable
from cdc_merge.doctor import slot_lifecycle
from cdc_merge.doctor.grants import PLATFORMS, PROPOSED_ROLE
from cdc_merge.doctor.grants import grants as grants_of
from cdc_merge.doctor.source_facts import Subject


@click.command("grants")
@click.argument("names", nargs=-1, metavar="[NAME]…")
@click.option(
    "--platform",
    type=click.Choice([*PLATFORMS]),
    default="plain",
    show_default=True,
    help="The platform of the source.",
)
@click.option("--role", help="The sidecar's role at the source. [default: cdc_merge, or the DSN's user of such a name]")
@click.pass_obj
def grants(invocation: Invocation, names: tuple[str, ...], platform: str, role: str | None) -> None:
    """Print the least privileges that each source must grant, as SQL for its DBA. No source is contacted."""
    for subject, dsn in select_sources(load_settings(invocation), names):
        user, database = of_dsn(dsn)
        granted = role or own_role(user) or PROPOSED_ROLE
        for line in grants_of(subject, granted, database, platform):
            click.echo(printable(line))
        if user != granted:
            click.echo()
            click.echo(printable(f"-- Then write user={granted} into the DSN of {subject.source}, in place of {user}."))
        click.echo()


def of_dsn(dsn: str) -> tuple[str, str]:
    """User and database of a connection string; placeholders for what it leaves to the environment."""
    try:
        parts = conninfo_to_dict(dsn)
    except psycopg.Error:
        parts = {}
    user = str(parts.get("user") or PROPOSED_ROLE)
    return user, str(parts.get("dbname") or parts.get("user") or "DATABASE")


def own_role(user: str) -> str | None:
    """The DSN's user when its name says that it is the sidecar's own: any other may be a person's or an application's."""
    return user if user.startswith(PROPOSED_ROLE) else None


@click.command("create-slot")
@click.argument("name")
@click.option("--failover", is_flag=True, help="Synchronise it to standbys (17 and later). [default: as configured]")
@click.option("--dry-run", is_flag=True, help="Show the SQL instead of running it.")
@click.pass_obj
def create_slot(invocation: Invocation, name: str, *, failover: bool, dry_run: bool) -> None:
    """Create the slot of a source: its server keeps all later WAL. With snapshot: initial, `run` does so itself."""
    subject, dsn = one(invocation, name)
    subject = replace(subject, failover=subject.failover or failover)
    if dry_run:
        click.echo(slot_lifecycle.creation(subject))
        return
    lsn = slot_lifecycle.create(subject, dsn)
    click.echo(
        f"Slot {subject.slot} is created: {name} keeps WAL from {lsn} on until the slot is read or dropped.", err=True
    )


@click.command("drop-slot")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Drop without confirmation.")
@click.option("--dry-run", is_flag=True, help="Show the SQL instead of running it.")
@click.pass_obj
def drop_slot(invocation: Invocation, name: str, *, yes: bool, dry_run: bool) -> None:
    """Drop the slot of a source; its server then keeps no WAL for it. Only the sidecar's slot, never an active one."""
    subject, dsn = one(invocation, name)
    with slot_lifecycle.connected(subject, dsn) as connection:
        slot_lifecycle.check_droppable(subject, slot_lifecycle.slot_at(subject, connection))
    if dry_run:
        click.echo(slot_lifecycle.removal(subject))
        return
    if not yes:
        warning = f"Dropping slot {subject.slot} loses the changes of {name} that are not read yet. Drop it?"
        click.confirm(warning, abort=True, err=True)
    slot_lifecycle.drop(subject, dsn)
    click.echo(f"Slot {subject.slot} is dropped.", err=True)


def one(invocation: Invocation, name: str) -> tuple[Subject, str]:
    return select_sources(load_settings(invocation), [name])[0]
