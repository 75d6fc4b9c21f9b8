"""`cdc-merge check-config`: every problem of the configuration at once, the sources' catalogs included.

The file is read first; only when it stands by itself are the sources asked, each once, without changing anything there.
"""

from __future__ import annotations

import dataclasses
import os
from typing import NamedTuple

import click

from cdc_merge.cli.context import Invocation, print_json
from cdc_merge.config import Settings, load
from cdc_merge.config.catalog_checks import Columns, catalog_problems, with_value_types
from cdc_merge.config.load import config_error, problem_lines
from cdc_merge.config.problems import ConfigProblem, Path
from cdc_merge.config.settings import PostgresSourceSettings
from cdc_merge.errors import CdcMergeError, SourceRefused, SourceUnavailable
from cdc_merge.queries.documents import Document
from cdc_merge.sources.postgres import catalog


class CatalogReport(NamedTuple):
    """What the sources said: which answered, columns of the tables that exist, problems, and why the others did not."""

    asked: set[str]
    columns: dict[tuple[str, str], Columns]
    problems: list[ConfigProblem]
    silent: dict[str, CdcMergeError]


@click.command("check-config")
@click.option("--offline", is_flag=True, help="Look at the file only; ask no source.")
@click.pass_obj
def command(invocation: Invocation, *, offline: bool) -> None:
    """Check the configuration and report every problem at once, with file, line, path and a suggestion.

    Exit code 78 when the file cannot be used, 69 when a source is unreachable, 77 when one refuses us.
    """
    settings = load(invocation.config, os.environ)
    for warning in settings.warnings:
        click.echo(f"warning: {warning}", err=True)
    answers = CatalogReport(set(), {}, [], {}) if offline else query_catalogs(settings)
    problems = [*answers.problems, *catalog_problems(settings, answers.columns, frozenset(answers.asked))]
    for error in answers.silent.values():
        click.echo(f"cdc-merge: {error}\n  {error.hint}", err=True)
    if problems:
        raise config_error(settings.file, settings.lines, problems)
    if answers.silent:
        raise click.exceptions.Exit(max(error.exit_code for error in answers.silent.values()))
    _good(invocation, settings, offline=offline)


def apply_catalogs(settings: Settings, *, has_run: bool) -> Settings:
    """The settings with the types that the sources' catalogs tell. ConfigError for what they contradict, SourceRefused for a source
    that says no; a source that cannot be reached is told about and may come later. What a sidecar that `has_run` before meets is a
    change of the source, not a mistake of the file: it is told, the rest goes on, and the merge asks about it (`schema_drift`)."""
    answers = query_catalogs(settings)
    problems = [*answers.problems, *catalog_problems(settings, answers.columns, frozenset(answers.asked))]
    if problems and not has_run:
        raise config_error(settings.file, settings.lines, problems)
    for line in problem_lines(settings.file, settings.lines, problems):
        click.echo(f"warning: {line}", err=True)
    for error in answers.silent.values():
        if isinstance(error, SourceRefused):
            raise error
        click.echo(f"warning: {error}\n  {error.hint}", err=True)
    return dataclasses.replace(settings, plan=with_value_types(settings.plan, answers.columns))


def query_catalogs(settings: Settings) -> CatalogReport:
    """Ask every PostgreSQL source about its tables. A source that cannot be asked is told, and the others are asked."""
    answers = CatalogReport(set(), {}, [], {})
    for source in settings.sources.values():
        if isinstance(source, PostgresSourceSettings):
            try:
                _ask(settings, source, answers)
            except SourceRefused as error:
                _refused(source.name, error, answers)
            except SourceUnavailable as error:
                answers.silent[source.name] = error
    return answers


def _ask(settings: Settings, source: PostgresSourceSettings, answers: CatalogReport) -> None:
    dsn = source.dsn.reveal()
    facts = catalog.describe(dsn, source.tables, publication=source.publication, source=source.name)
    answers.asked.add(source.name)
    answers.columns.update({(source.name, table): found.columns for table, found in facts.items()})
    wanted = {table: _needed(settings, source.name, table) & found.columns.keys() for table, found in facts.items()}
    for problem in catalog.preflight(dsn, source.publication, wanted, source=source.name):
        path = _path(settings, source.name, problem.place)
        answers.problems.append(ConfigProblem(path, problem.sentence.rstrip("."), problem.hint.rstrip(".")))


def _refused(source: str, error: SourceRefused, answers: CatalogReport) -> None:
    """A connection string that is none is a mistake of the file; every other refusal is the server's."""
    if error.problem != "configuration":
        answers.silent[source] = error
        return
    sentence, hint = str(error).rstrip("."), error.hint.rstrip(".")
    answers.problems.append(ConfigProblem(("sources", source, "dsn"), sentence, hint))


def _needed(settings: Settings, source: str, table: str) -> set[str]:
    maps = [found for found in settings.plan.tables if (found.source, found.table) == (source, table)]
    actors = {found.actor_column for found in maps if found.actor_column is not None}
    return actors.union(*(found.key for found in maps), *(found.fields.values() for found in maps))


def _path(settings: Settings, source: str, place: str) -> Path:
    """Where the file speaks of what the catalog complains about."""
    for found in settings.plan.tables:
        if (found.source, found.table) == (source, place):
            return ("entities", found.entity, "from", source, "table")
    return ("sources", source, "publication") if place.startswith("publication") else ("sources", source)


def _good(invocation: Invocation, settings: Settings, *, offline: bool) -> None:
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
    click.echo(f"{settings.file} is good" + (" by itself; no source was asked" if offline else ""))
