"""The doctor inside the running sidecar: the same checks every minute, one metric per check.

Rules: its own thread, which no failure ends and no other thread waits for; queries only, so that the probes have no
sample. Each round opens two connections per source and closes them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cdc_merge.doctor.findings import FAIL, SEVERITIES, CheckResult, worst
from cdc_merge.doctor.preflight import Doctor
from cdc_merge.doctor.source_facts import Subject

LOG: Final = logging.getLogger("cdc_merge.doctor")
PERIOD_S: Final = 60.0
STOP_LIMIT_S: Final = 1.0  # a round may be waiting for a server; its thread is a daemon


class Rounds:
    """Examines every source each `period_s` seconds, which may be set until the start. `targets` is called in each round."""

    def __init__(
        self, doctor: Doctor, targets: Callable[[], Sequence[tuple[Subject, str]]], period_s: float = PERIOD_S
    ) -> None:
        self._doctor = doctor
        self._patients = targets
        self.period_s = period_s
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.checks: tuple[CheckResult, ...] = ()
        self.ended_at_s: float | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._work, name="doctor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_LIMIT_S)

    def _work(self) -> None:
        # The first round waits: at the start the sidecar is still creating its slots.
        while not self._stopping.wait(self.period_s):
            self.round()

    def round(self) -> None:
        """One examination. An error is logged by its type, and the last results stay."""
        try:
            checks = self._doctor.examine(self._patients()).checks
        except Exception as error:  # noqa: BLE001 the edge of the thread: one failing round must not end the next
            if self._stopping.is_set():
                return  # the store was closed under it
            LOG.warning("The doctor's round failed with %s.", type(error).__name__, extra={"event": "doctor_failed"})
            return
        self._log_new_failures(checks)
        self.checks = checks
        self.ended_at_s = time.time()

    def _log_new_failures(self, checks: Sequence[CheckResult]) -> None:
        """Log each failure that the last round did not have."""
        before = {(check.source, check.code, check.about) for check in self.checks if check.severity == FAIL}
        for check in checks:
            if check.severity == FAIL and (check.source, check.code, check.about) not in before:
                where = {"event": "doctor_check_failed", "source": check.source, "check": check.code}
                LOG.warning("%s %s: %s %s", check.source, check.code, check.title, check.about, extra=where)


class DoctorCollector(Collector):
    """`cdc_merge_doctor_check_status{source,check}`: 0 ok, 1 warn, 2 bad, 3 unknown; the worst of a check's findings.
    No sample before the first round."""

    def __init__(self, rounds: Rounds) -> None:
        self._rounds = rounds

    def collect(self) -> Iterator[Metric]:
        status = GaugeMetricFamily(
            "cdc_merge_doctor_check_status",
            "Result of a check of the doctor: 0 ok, 1 warn, 2 bad, 3 unknown.",
            labels=("source", "check"),
        )
        by_labels: dict[tuple[str, str], list[CheckResult]] = {}
        for check in self._rounds.checks:
            by_labels.setdefault((check.source, check.code), []).append(check)
        for labels, checks in by_labels.items():
            status.add_metric(labels, SEVERITIES.index(worst(checks)))
        yield status
        ended = GaugeMetricFamily("cdc_merge_doctor_last_round_timestamp_seconds", "When the last round ended.")
        if self._rounds.ended_at_s is not None:
            ended.add_metric((), self._rounds.ended_at_s)
        yield ended
