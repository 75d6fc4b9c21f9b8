"""Metrics of batches, of the sources' clocks and of the queues of a running sidecar, on real servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from cdc_merge.demo.servers import DemoServer
from tests.support.alerting import wait_until
from tests.support.shop import Shop, metric, shop, watching_sidecar


@pytest.fixture
def place(postgres_server: DemoServer, tmp_path: Path) -> Iterator[Shop]:
    with shop(postgres_server, tmp_path) as opened:
        yield opened


def test_rows_of_transactions_and_the_origin_of_record_states_are_measured(place: Shop) -> None:
    with watching_sidecar(place) as (_, address):
        place.execute("crm", "update customer set phone = 'other' where no in ('C1', 'C2', 'C3')")
        place.execute("crm", "update customer set phone = 'more' where no = 'C1'")
        rows = 'cdc_merge_transaction_rows_{}{{source="crm"{}}}'
        wait_until(lambda: metric(address, rows.format("count", "")) == 2, "both transactions are counted")
        assert metric(address, rows.format("sum", "")) == 4
        assert metric(address, 'cdc_merge_transaction_rows_bucket{le="1.0",source="crm"}') == 1
        assert metric(address, 'cdc_merge_record_loads_total{origin="memory"}') >= 3
        assert metric(address, 'cdc_merge_record_loads_total{origin="store"}') >= 9
        assert metric(address, "cdc_merge_batch_changes_sum") == 2 * 9 + 4
        assert metric(address, 'cdc_merge_batch_seconds_count{stage="commit"}') > 0


def test_a_transaction_that_carries_the_time_of_its_origin_is_counted_as_such(place: Shop) -> None:
    with watching_sidecar(place) as (_, address):
        place.execute("erp", "update customer set phone = 'first' where no = 'C1'")
        with psycopg.connect(place.dsns["erp"]) as connection:
            connection.execute("select pg_replication_origin_create('figures')")
            connection.execute("select pg_replication_origin_session_setup('figures')")
            connection.execute("select pg_replication_origin_xact_setup('0/1', now() - interval '1 hour')")
            connection.execute("update customer set phone = 'old' where no = 'C2'")
            connection.commit()
            connection.execute("select pg_replication_origin_session_reset()")
            connection.execute("select pg_replication_origin_drop('figures')")
        series = 'cdc_merge_clock_stepped_back_total{{reason="{}",source="erp"}}'
        wait_until(lambda: metric(address, series.format("origin")) == 1, "it is counted")
        assert metric(address, series.format("own")) == 0
