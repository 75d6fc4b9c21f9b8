"""A pytest plugin: what takes longest begins first, so that no worker waits for another's long test at the end.

The files are those that took more than ten seconds when this was last measured; a file that is not here is only begun later.
"""

from __future__ import annotations

from typing import Final

import pytest

SLOWEST: Final = (
    "crash/test_large_transaction.py",
    "faults/test_network.py",
    "resync/test_resync.py",
    "postgres/test_failover.py",
    "postgres/test_slot_figures.py",
    "acceptance/test_demo.py",
    "postgres/test_process_reader.py",
    "observability/test_end_to_end.py",
    "laws/test_fold_equals_oracle.py",
    "resync/test_lost_position.py",
    "laws/test_state_machine.py",
    "faults/test_walsender.py",
    "observability/test_rules.py",
    "laws/test_checkpoint.py",
    "postgres/test_reader_stream.py",
    "resync/test_initial_snapshot.py",
    "crash/test_any_step.py",
    "scenarios/test_any_day.py",
    "observability/test_dashboards.py",
    "crash/test_any_moment.py",
    "resync/test_pause.py",
    "laws/test_compaction.py",
    "scenarios/test_rows_and_keys.py",
    "laws/test_explain.py",
    "scenarios/test_keys_and_tables.py",
    "observability/test_demo_output.py",
    "postgres/test_reader_refusals.py",
    "faults/test_server_ends.py",
    "scenarios/test_decisions.py",
    "postgres/test_row_forms.py",
    "postgres/test_heartbeat.py",
    "scenarios/test_concurrent_edits.py",
    "observability/test_traces.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: next((n for n, file in enumerate(SLOWEST) if item.path.match(file)), len(SLOWEST)))
