"""`cdc-merge doctor`: the preflight of every source for DBAs.

One line per check with what was seen; under everything that is not ok: why it matters, the SQL that mends it, and what
that SQL costs. Nothing is changed at a source but for what `--no-probe` switches off (a temporary slot, a message).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import click

from cdc_merge.cli.context import Invocation, print_json
from cdc_merge.cli.read_client import load_settings
from cdc_merge.cli.table_output import output_option, printable
from cdc_merge.config import Settings
from cdc_merge.config.problems import did_you_mean
from cdc_merge.config.settings import SqliteStoreSettings
from cdc_merge.doctor.findings import FAIL, OK, UNKNOWN, WARN, CheckResult
from cdc_merge.doctor.preflight import Doctor, Examination
from cdc_merge.doctor.source_facts import Subject
from cdc_merge.doctor.targets import Positions, subjects
from cdc_merge.errors import CdcMergeError, NotFound
from cdc_merge.queries.documents import Document

COLOURS: Final = {OK: "green", WARN: "yellow", FAIL: "red", UNKNOWN: "magenta"}
WIDEST: Final = max(map(len, COLOURS))
PROBLEMS: Final = 4
EDGE_CODES: Final = (69, 77)
NEEDS: Final = {"restart": "restarts the server", "lock": "takes a short lock", "superuser": "needs a superuser"}


@click.command("doctor")
@click.option("--source", "names", multiple=True, metavar="NAME", help="Only this source; may be repeated.")
@click.option("--sql", "only_sql", is_flag=True, help="Print the SQL that mends, and nothing else.")
@click.option("--problems", "only_problems", is_flag=True, help="Leave out what is ok.")
@click.option("--strict", is_flag=True, help="Warnings and what is unknown count as problems for the exit code.")
@click.option(
    "--probe/--no-probe", default=True, help="Walk the path: a temporary slot and a message. [default: probe]"
)
@output_option
@click.pass_obj
def command(invocation: Invocation, /, names: tuple[str, ...], **flags: bool) -> int:
    """Check every source as its DBA would: server, limits, role, publication, tables, slot, position.

    Exit code 0 when nothing failed, 4 when a check found problems, 69 when a source is unreachable, 77 when one
    does not let us in. It asks as the sidecar's own role: what that role may not see is unknown, never ok.
    """
    settings = load_settings(invocation)
    patients = chosen(settings, names)
    found = Doctor(lambda: positions_of(settings), _now_us, probing=flags["probe"]).examine(patients)
    shown = [check for check in found.checks if check.severity != OK or not flags["only_problems"]]
    if flags["only_sql"]:
        for line in mending(found.checks):
            click.echo(line)
    elif invocation.as_json:
        print_json(document(found))
    else:
        _print(shown)
        click.echo(summary(found.checks), err=True)
    return exit_code(found, strict=flags["strict"])


def _now_us() -> int:
    return time.time_ns() // 1000


def chosen(settings: Settings, names: Sequence[str]) -> list[tuple[Subject, str]]:
    """The PostgreSQL sources of these names (of all, without names) with their DSNs. NotFound for any other name."""
    patients = subjects(settings.sources, settings.plan, positions_of(settings))
    known = {subject.source for subject, _ in patients}
    for name in names:
        if name not in known:
            what = "is no PostgreSQL database" if name in settings.sources else "is not in the configuration"
            raise NotFound(f"The source {name} {what}.", hint=did_you_mean(name, known).capitalize())
    return [patient for patient in patients if not names or patient[0].source in names]


def positions_of(settings: Settings) -> Positions:
    """What the store has of each source; None, and a word on stderr, when it cannot be asked."""
    # Imported when it is asked: the stores' packages would slow down every other command.
    from cdc_merge.app import sidecar  # noqa: PLC0415

    if isinstance(settings.store, SqliteStoreSettings) and not settings.store.path.exists():
        return {}
    try:
        store = sidecar.open_store(settings)
        try:
            return {name: position for name, (position, _) in store.positions().items()}
        finally:
            store.close()
    except CdcMergeError as error:
        click.echo(f"warning: {error} {error.hint}", err=True)
        return None


# ---------------------------------------------------------------- for people


def _print(checks: Sequence[CheckResult]) -> None:
    for source in dict.fromkeys(check.source for check in checks):
        click.secho(source, bold=True)
        for check in checks:
            if check.source == source:
                for line in lines(check):
                    click.echo(line)
        click.echo()


def lines(check: CheckResult) -> Iterator[str]:
    """One check for a terminal; colours vanish where there is none."""
    severity = click.style(check.severity.ljust(WIDEST), fg=COLOURS[check.severity], bold=check.severity != OK)
    about = f"{check.about}: " if check.about else ""
    yield f"  {severity}  {check.code}  {check.title}: {printable(about + check.seen)}"
    if check.severity == OK:
        return
    margin = " " * (WIDEST + 11)
    yield f"{margin}{click.style(check.why, dim=True)}"
    for statement in check.fix.sql:
        yield f"{margin}{click.style(printable(statement), fg='cyan')}"
    costs = [NEEDS[need] for need in check.fix.needs]
    yield margin + click.style("; ".join([*costs, check.docs]), dim=True)


def summary(checks: Iterable[CheckResult]) -> str:
    counts = Counter(check.severity for check in checks)
    words = {OK: "ok", WARN: "warnings", FAIL: "failed", UNKNOWN: "unknown"}
    return ", ".join(f"{counts[severity]} {word}" for severity, word in words.items())


# ---------------------------------------------------------------- for programs


def mending(checks: Iterable[CheckResult]) -> Iterator[str]:
    """A script: each fix once, under a comment that says what for. What needs a person's decision stays a comment."""
    told: set[tuple[str, tuple[str, ...]]] = set()
    for check in checks:
        key = (check.source, check.fix.sql)
        if check.severity == OK or not check.fix.sql or key in told:
            continue
        told.add(key)
        costs = f" ({'; '.join(NEEDS[need] for need in check.fix.needs)})" if check.fix.needs else ""
        about = f" {check.about}" if check.about else ""
        yield printable(f"-- {check.source} {check.code}{about}: {check.seen}{costs}")
        yield from map(printable, check.fix.sql)
        yield ""


def document(found: Examination) -> Document:
    counts = Counter(check.severity for check in found.checks)
    return {
        "items": [check_document(check) for check in found.checks],
        "next_cursor": None,
        "summary": {severity: counts[severity] for severity in COLOURS},
    }


def check_document(check: CheckResult) -> Document:
    return {
        "source": check.source,
        "code": check.code,
        "severity": check.severity,
        "title": check.title,
        "about": check.about or None,
        "seen": check.seen,
        "why": check.why,
        "fix": {"sql": [*check.fix.sql], **{need: need in check.fix.needs for need in NEEDS}},
        "docs": check.docs,
    }


def exit_code(found: Examination, *, strict: bool) -> int:
    """Who could not be asked counts first, then what was found."""
    if found.silent:
        return max(error.exit_code if error.exit_code in EDGE_CODES else PROBLEMS for error in found.silent)
    counted = {FAIL, WARN, UNKNOWN} if strict else {FAIL}
    return PROBLEMS if any(check.severity in counted for check in found.checks) else 0
