"""`cdc-merge source grants`, `create-slot`, `drop-slot`: what a source's DBA is asked for, and our slot's life."""

from __future__ import annotations

from dataclasses import replace

import click
import psycopg
from psycopg.conninfo import conninfo_to_dict

from cdc_merge.cli.context import Invocation
from cdc_merge.cli.doctor import chosen
from cdc_merge.cli.read_client import load_settings
from cdc_merge.cli.table_output import printable
from cdc_merge.doctor import slot_lifecycle
from cdc_merge.doctor.grants import PLATFORMS
from cdc_merge.doctor.grants import grants as grants_of
from cdc_merge.doctor.source_facts import Subject


@click.command("grants")
@click.argument("names", nargs=-1, metavar="[NAME]…")
@click.option("--platform", type=click.Choice([*PLATFORMS]), default="plain", show_default=True, help="Where it runs.")
@click.option("--role", help="The sidecar's role at the source. [default: the user of its DSN]")
@click.pass_obj
def grants(invocation: Invocation, names: tuple[str, ...], platform: str, role: str | None) -> None:
    """Print the least that each source must grant, as SQL for its DBA. Nothing is executed, no source is asked."""
    for subject, dsn in chosen(load_settings(invocation), names):
        user, database = of_dsn(subject, dsn)
        for line in grants_of(subject, role or user, database, platform):
            click.echo(printable(line))
        click.echo()


def of_dsn(subject: Subject, dsn: str) -> tuple[str, str]:
    """User and database of a connection string; stand-ins for what it leaves to the environment."""
    try:
        parts = conninfo_to_dict(dsn)
    except psycopg.Error:
        parts = {}
    user = str(parts.get("user") or f"cdc_merge_{subject.source}")
    return user, str(parts.get("dbname") or parts.get("user") or "DATABASE")


@click.command("create-slot")
@click.argument("name")
@click.option("--failover", is_flag=True, help="Let standbys keep it, too (17 and later). [default: as configured]")
@click.option("--dry-run", is_flag=True, help="Show the SQL instead of running it.")
@click.pass_obj
def create_slot(invocation: Invocation, name: str, *, failover: bool, dry_run: bool) -> None:
    """Create the slot of a source: changes are kept from now on. With snapshot: initial, `run` does so itself."""
    subject, dsn = one(invocation, name)
    subject = replace(subject, failover=subject.failover or failover)
    if dry_run:
        click.echo(slot_lifecycle.creation(subject))
        return
    lsn = slot_lifecycle.create(subject, dsn)
    click.echo(
        f"Slot {subject.slot} keeps every change of {name} from {lsn} on, until it is read or dropped.", err=True
    )


@click.command("drop-slot")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Show the SQL instead of running it.")
@click.pass_obj
def drop_slot(invocation: Invocation, name: str, *, yes: bool, dry_run: bool) -> None:
    """Drop the slot of a source, which then keeps nothing for us. Only our own, never while somebody reads it."""
    subject, dsn = one(invocation, name)
    with slot_lifecycle.asking(subject, dsn) as connection:
        slot_lifecycle.check_droppable(subject, slot_lifecycle.slot_at(subject, connection))
    if dry_run:
        click.echo(slot_lifecycle.removal(subject))
        return
    if not yes:
        warning = f"Changes of {name} that were not read yet are lost with slot {subject.slot}. Drop it?"
        click.confirm(warning, abort=True, err=True)
    slot_lifecycle.drop(subject, dsn)
    click.echo(f"Slot {subject.slot} is dropped.", err=True)


def one(invocation: Invocation, name: str) -> tuple[Subject, str]:
    return chosen(load_settings(invocation), [name])[0]
