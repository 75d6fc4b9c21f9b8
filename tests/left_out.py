"""Says at the end of every run what was left out and how to get it; CDC_MERGE_REQUIRE_ALL=1 makes that a failure."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.install_extras import missing


def required() -> bool:
    """Whether anything left out fails the run."""
    return os.environ.get("CDC_MERGE_REQUIRE_ALL", "") == "1"


def left_out(skipped: list[pytest.TestReport]) -> Iterator[str]:
    """One line for each missing piece and for each reason why tests were skipped."""
    for piece in missing():
        yield f"{piece.name} is not installed: {piece.how}"
    reasons: dict[str, int] = {}
    for report in skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[reason] = reasons.get(reason, 0) + 1
    for reason, tests in reasons.items():
        yield f"{tests} × {reason.removeprefix('Skipped: ')}"


class LeftOut:
    """Collects skipped tests of one run."""

    def __init__(self) -> None:
        self.skipped: list[pytest.TestReport] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self.skipped.append(report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if required() and session.exitstatus == pytest.ExitCode.OK and list(left_out(self.skipped)):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        lines = list(left_out(self.skipped))
        if not lines:
            return
        terminalreporter.section("left out" + (" (a failure: CDC_MERGE_REQUIRE_ALL=1)" if required() else ""))
        for line in lines:
            terminalreporter.write_line(line)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(LeftOut(), "cdc-merge-left-out")
