"""`cdc-merge check-config`: every problem of the configuration at once, the sources' catalogs included.

The file is checked first. Only when it is valid by itself are the catalogs queried: each source once, read-only.
"""

from __future__ import annotations

import dataclasses
import os
from typing import NamedTuple

import click

from cdc_merge.cli.context import Invocation, print_json
from cdc_merge.cli.store_directory import directory_warnings
from cdc_merge.config import Settings, load
from cdc_merge.config.catalog_checks import Columns, catalog_problems, catalog_warnings, with_value_types
from cdc_merge.config.load import config_error, problem_lines
from cdc_merge.config.problems import ConfigProblem, Path
from cdc_merge.config.settings import PostgresSourceSettings
from cdc_merge.errors import CdcMergeError, SourceRefused, SourceUnavailable
from cdc_merge.queries.documents import Document
from cdc_merge.sources.postgres import catalog


class CatalogReport(NamedTuple):
    """The catalogs of the sources: which were read, the columns of the mapped tables, the problems, and by source the
    error of each that could not be read."""

    sources: set[str]
    columns: dict[tuple[str, str], Columns]
    problems: list[ConfigProblem]
    errors: dict[str, CdcMergeError]


@click.command("check-config")
@click.option("--offline", is_flag=True, help="Check the file only; connect to no source.")
@click.pass_obj
def command(invocation: Invocation, *, offline: bool) -> None:
    """Check the configuration and report every problem at once, with file, line, path and a suggestion.

    Exit code 78 when the file cannot be used, 69 when a source is unreachable, 77 when one refuses the connection.
    """
    settings = load(invocation.config, os.environ)
    # Offline the file is often checked on another machine than the one that runs the sidecar.
    for warning in (*settings.warnings, *(() if offline else directory_warnings(settings.store))):
        click.echo(f"warning: {warning}", err=True)
    catalogs = CatalogReport(set(), {}, [], {}) if offline else query_catalogs(settings)
    problems = _all_problems(settings, catalogs)
    for warning in problem_lines(settings.file, settings.lines, catalog_warnings(settings, catalogs.columns)):
        click.echo(f"warning: {warning}", err=True)
    for error in catalogs.errors.values():
        click.echo(f"cdc-merge: {error}\n  {error.hint}", err=True)
    if problems:
        raise config_error(settings.file, settings.lines, problems)
    if catalogs.errors:
        raise click.exceptions.Exit(max(error.exit_code for error in catalogs.errors.values()))
    _print_result(invocation, settings, offline=offline)


def apply_catalogs(settings: Settings, *, has_run: bool) -> Settings:
    """The settings with the value types of the sources' catalogs.

    ConfigError where a catalog contradicts the file, SourceRefused when a source refuses the connection. An unreachable
    source is a warning: it may come up later. After the first run (`has_run`) a contradiction is a schema change of the
    source, not a mistake in the file: it is a warning, and the merge raises it as a conflict (`schema_drift`).
    """
    catalogs = query_catalogs(settings)
    problems = _all_problems(settings, catalogs)
    if problems and not has_run:
        raise config_error(settings.file, settings.lines, problems)
    for line in problem_lines(settings.file, settings.lines, problems):
        click.echo(f"warning: {line}", err=True)
    for error in catalogs.errors.values():
        if isinstance(error, SourceRefused):
            raise error
        click.echo(f"warning: {error}\n  {error.hint}", err=True)
    return dataclasses.replace(settings, plan=with_value_types(settings.plan, catalogs.columns))


def _all_problems(settings: Settings, catalogs: CatalogReport) -> list[ConfigProblem]:
    return [*catalogs.problems, *catalog_problems(settings, catalogs.columns, frozenset(catalogs.sources))]


def query_catalogs(settings: Settings) -> CatalogReport:
    """The catalog of every PostgreSQL source. An error of one source is reported and does not stop the others."""
    catalogs = CatalogReport(set(), {}, [], {})
    for source in settings.sources.values():
        if isinstance(source, PostgresSourceSettings):
            try:
                _query_catalog(settings, source, catalogs)
            except SourceRefused as error:
                _report_refusal(source.name, error, catalogs)
            except SourceUnavailable as error:
                catalogs.errors[source.name] = error
    return catalogs


def _query_catalog(settings: Settings, source: PostgresSourceSettings, catalogs: CatalogReport) -> None:
    dsn = source.dsn.reveal()
    tables = catalog.describe(dsn, source.tables, publication=source.publication, source=source.name)
    catalogs.sources.add(source.name)
    catalogs.columns.update({(source.name, name): table.columns for name, table in tables.items()})
    wanted = {
        name: _mapped_columns(settings, source.name, name) & table.columns.keys() for name, table in tables.items()
    }
    for problem in catalog.preflight(dsn, source.publication, wanted, source=source.name):
        path = _config_path(settings, source.name, problem.place)
        catalogs.problems.append(ConfigProblem(path, problem.sentence.rstrip("."), problem.hint.rstrip(".")))


def _report_refusal(source: str, error: SourceRefused, catalogs: CatalogReport) -> None:
    """An invalid connection string is a problem of the file; every other refusal is the server's."""
    if error.problem != "configuration":
        catalogs.errors[source] = error
        return
    sentence, hint = str(error).rstrip("."), error.hint.rstrip(".")
    catalogs.problems.append(ConfigProblem(("sources", source, "dsn"), sentence, hint))


def _mapped_columns(settings: Settings, source: str, table: str) -> set[str]:
    maps = [each for each in settings.plan.tables if (each.source, each.table) == (source, table)]
    actors = {each.actor_column for each in maps if each.actor_column is not None}
    return actors.union(*(each.key for each in maps), *(each.fields.values() for each in maps))


def _config_path(settings: Settings, source: str, place: str) -> Path:
    """The configuration path of a table, publication or source that has a catalog problem."""
    for table in settings.plan.tables:
        if (table.source, table.table) == (source, place):
            return ("entities", table.entity, "from", source, "table")
    return ("sources", source, "publication") if place.startswith("publication") else ("sources", source)


def _print_result(invocation: Invocation, settings: Settings, *, offline: bool) -> None:
    mapped: dict[str, Document] = {name: [*entity.sources] for name, entity in settings.plan.entities.items()}
    if invocation.as_json:
        document: Document = {
            "file": str(settings.file),
            "offline": offline,
            "policy": settings.plan.policy,
            "entities": mapped,
            "warnings": [*settings.warnings],
        }
        print_json(document)
        return
    for name, entity in settings.plan.entities.items():
        click.echo(f"{name}: {', '.join(entity.sources)}")
    click.echo(f"{settings.file} is valid" + (" by itself; no source was contacted" if offline else ""))
