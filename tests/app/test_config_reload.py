"""A reload is applied between two batches or not at all, and its caller knows which."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cdc_merge.app import config_reload
from cdc_merge.app.config_reload import ConfigReload
from cdc_merge.config import Settings, load
from cdc_merge.conflicts.expression_port import ExpressionError
from cdc_merge.errors import CdcMergeError, ConfigError
from cdc_merge.model import ConfigReloaded, Fact
from tests.support.configuration import ENVIRONMENT, FILE

STRICTER = FILE.replace("severity: high", "severity: critical")


class MergeThread:
    """Stands in for the merging thread: the applied settings, and the reported facts."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "cdc-merge.yaml"
        self.file.write_text(FILE)
        self.taken: list[Settings] = []
        self.facts: list[Fact] = []
        self.error: Exception | None = None
        self.woken = threading.Event()
        self.reloading = ConfigReload(
            load(self.file, ENVIRONMENT), ENVIRONMENT, self.take, self.woken.set, self.observe
        )

    def observe(self, fact: Fact) -> None:
        self.facts.append(fact)

    def take(self, settings: Settings) -> None:
        if self.error is not None:
            raise self.error
        self.taken.append(settings)

    @contextmanager
    def between_batches(self) -> Iterator[None]:
        """The next batch ends after the next reload request."""

        def next_batch() -> None:
            self.woken.wait(20)
            self.reloading.between_batches()

        thread = threading.Thread(target=next_batch)
        thread.start()
        yield
        self.woken.set()
        thread.join()


@pytest.fixture
def merging(tmp_path: Path) -> MergeThread:
    return MergeThread(tmp_path)


def test_nothing_is_taken_before_the_batch_is_over(merging: MergeThread) -> None:
    merging.file.write_text(STRICTER)
    asking = threading.Thread(target=merging.reloading.reload)
    asking.start()
    merging.woken.wait(20)
    assert merging.taken == []
    merging.reloading.between_batches()
    asking.join(20)
    assert [settings.plan.policy for settings in merging.taken] == [load(merging.file, ENVIRONMENT).plan.policy]
    assert merging.facts == [ConfigReloaded(merging.taken[0].plan.policy)]


def test_what_the_merging_thread_cannot_take_leaves_the_old_configuration_in_force(merging: MergeThread) -> None:
    old = load(merging.file, ENVIRONMENT).plan.policy
    merging.file.write_text(STRICTER)
    merging.error = ExpressionError("no such overload")
    with merging.between_batches(), pytest.raises(ExpressionError):
        merging.reloading.reload()
    assert merging.facts == [ConfigReloaded(old, "no such overload")]


def test_an_internal_error_is_reported_as_well(merging: MergeThread) -> None:
    merging.file.write_text(STRICTER)
    merging.error = ZeroDivisionError("1/0")
    with merging.between_batches(), pytest.raises(ZeroDivisionError):
        merging.reloading.reload()
    (fact,) = merging.facts
    assert isinstance(fact, ConfigReloaded)
    assert fact.problem == "ZeroDivisionError"


def test_a_cancelled_reload_is_never_applied(merging: MergeThread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_reload, "APPLY_LIMIT_S", 0.01)
    merging.file.write_text(STRICTER)
    with pytest.raises(CdcMergeError, match="the previous configuration is in force"):
        merging.reloading.reload()
    merging.reloading.between_batches()
    assert merging.taken == []


def test_after_a_reload_the_next_one_is_compared_with_what_is_in_force(merging: MergeThread) -> None:
    merging.file.write_text(STRICTER)
    with merging.between_batches():
        merging.reloading.reload()
    merging.file.write_text(STRICTER.replace("8787", "8788"))
    with pytest.raises(ConfigError):
        merging.reloading.reload()
    assert [isinstance(fact, ConfigReloaded) and fact.problem is None for fact in merging.facts] == [True, False]
    assert isinstance(merging.facts[1], ConfigReloaded)
    assert merging.facts[1].policy == merging.taken[0].plan.policy
