"""`cdc-merge doctor`: the preflight of every source for DBAs.

One line per check with its finding; below each check that is not ok: why it matters, the SQL that fixes it, and what
that SQL costs. A source is changed only by the probes (a temporary slot, a message), which `--no-probe` switches off.
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
MOST_STATEMENTS: Final = 20  # more do not help the reader of a screen
EDGE_CODES: Final = (69, 77)
NEEDS: Final = {"restart": "restarts the server", "lock": "takes a short lock", "superuser": "needs a superuser"}


@click.command("doctor")
@click.option("--source", "names", multiple=True, metavar="NAME", help="Only this source; may be repeated.")
@click.option("--sql", "only_sql", is_flag=True, help="Print only the SQL that fixes the findings.")
@click.option("--problems", "only_problems", is_flag=True, help="Leave out checks that are ok.")
@click.option("--strict", is_flag=True, help="Count warnings and unknown checks as problems in the exit code.")
@click.option(
    "--probe/--no-probe", default=True, help="Test the whole path with a temporary slot and a message. [default: probe]"
)
@output_option
@click.pass_obj
def command(invocation: Invocation, /, names: tuple[str, ...], **flags: bool) -> int:
    """Check every source: server, limits, role, publication, tables, slot, position.

    Exit code 0 when no check failed, 4 when one failed, 69 when a source is unreachable, 77 when one refuses the
    connection. The queries run as the sidecar's own role: what that role may not see is unknown, never ok.
    """
    settings = load_settings(invocation)
    targets = select_sources(settings, names)
    examination = Doctor(lambda: stored_positions(settings), _now_us, probing=flags["probe"]).examine(targets)
    shown = [check for check in examination.checks if check.severity != OK or not flags["only_problems"]]
    if flags["only_sql"]:
        for line in fix_script(examination.checks):
            click.echo(line)
    elif invocation.as_json:
        print_json(document(examination))
    else:
        _print(shown)
        click.echo(summary(examination.checks), err=True)
    return exit_code(examination, strict=flags["strict"])


def _now_us() -> int:
    return time.time_ns() // 1000


def select_sources(settings: Settings, names: Sequence[str]) -> list[tuple[Subject, str]]:
    """The PostgreSQL sources of these names (all without names) with their DSNs. NotFound for any other name."""
    targets = subjects(settings.sources, settings.plan, stored_positions(settings))
    available = {subject.source for subject, _ in targets}
    for name in names:
        if name not in available:
            what = "is not a PostgreSQL database" if name in settings.sources else "is not in the configuration"
            raise NotFound(f"The source {name} {what}.", hint=did_you_mean(name, available).capitalize())
    return [target for target in targets if not names or target[0].source in names]


def stored_positions(settings: Settings) -> Positions:
    """The position of each source in the store; None, with a warning on stderr, when the store cannot be read."""
    # Imported on use: the stores' packages would slow down every other command.
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


# ---------------------------------------------------------------- text


def _print(checks: Sequence[CheckResult]) -> None:
    for source in dict.fromkeys(check.source for check in checks):
        click.secho(source, bold=True)
        for check in checks:
            if check.source == source:
                for line in lines(check):
                    click.echo(line)
        click.echo()


def lines(check: CheckResult) -> Iterator[str]:
    """One check as text lines; click drops the colours when stdout is no terminal."""
    severity = click.style(check.severity.ljust(WIDEST), fg=COLOURS[check.severity], bold=check.severity != OK)
    about = f"{check.about}: " if check.about else ""
    yield f"  {severity}  {check.code}  {check.title}: {printable(about + check.seen)}"
    if check.severity == OK:
        return
    margin = " " * (WIDEST + 11)
    yield f"{margin}{click.style(check.why, dim=True)}"
    shown = check.fix.sql
    if len(shown) > MOST_STATEMENTS:
        shown = (f"-- {len(shown)} statements: cdc-merge doctor --source {check.source} --sql",)
    for statement in shown:
        yield f"{margin}{click.style(printable(statement), fg='cyan')}"
    costs = [NEEDS[need] for need in check.fix.needs]
    yield margin + click.style("; ".join([*costs, check.docs]), dim=True)


def summary(checks: Iterable[CheckResult]) -> str:
    counts = Counter(check.severity for check in checks)
    words = {OK: "ok", WARN: "warnings", FAIL: "failed", UNKNOWN: "unknown"}
    return ", ".join(f"{counts[severity]} {word}" for severity, word in words.items())


# ---------------------------------------------------------------- JSON and SQL


def fix_script(checks: Iterable[CheckResult]) -> Iterator[str]:
    """An SQL script: each fix once, below a comment with its finding. A fix that needs a decision stays a comment."""
    printed: set[tuple[str, tuple[str, ...]]] = set()
    for check in checks:
        key = (check.source, check.fix.sql)
        if check.severity == OK or not check.fix.sql or key in printed:
            continue
        printed.add(key)
        costs = f" ({'; '.join(NEEDS[need] for need in check.fix.needs)})" if check.fix.needs else ""
        about = f" {check.about}" if check.about else ""
        yield printable(f"-- {check.source} {check.code}{about}: {check.seen}{costs}")
        yield from map(printable, check.fix.sql)
        yield ""


def document(examination: Examination) -> Document:
    counts = Counter(check.severity for check in examination.checks)
    return {
        "items": [check_document(check) for check in examination.checks],
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


def exit_code(examination: Examination, *, strict: bool) -> int:
    """The code of an unreachable or refusing source comes first, then that of the findings."""
    if examination.errors:
        return worst_exit_code(examination.errors)
    counted = {FAIL, WARN, UNKNOWN} if strict else {FAIL}
    return PROBLEMS if any(check.severity in counted for check in examination.checks) else 0


def worst_exit_code(errors: Iterable[CdcMergeError]) -> int:
    return max(error.exit_code if error.exit_code in EDGE_CODES else PROBLEMS for error in errors)
