"""The sidecar reports the durable state of its sources: after a resync is reported complete, its records are readable."""

from __future__ import annotations

from pathlib import Path

from cdc_merge.app.sidecar import Sidecar
from cdc_merge.config.load import load
from cdc_merge.model import Stamp
from cdc_merge.model.source_commands import Resync, SourceOrders

CONFIG = """\
store: sqlite://{}/state.db
sources: {{crm: {{type: postgres, dsn: "host=127.0.0.1 port=9 dbname=none", slot: s}}}}
entities:
  customer:
    from: {{crm: {{table: public.customer, key: no, fields: {{phone: phone}}}}}}
    fields: {{phone: {{merge: mv}}}}
"""


def test_a_resync_is_complete_only_when_its_end_is_on_disk(tmp_path: Path) -> None:
    file = tmp_path / "cdc-merge.yaml"
    file.write_text(CONFIG.format(tmp_path))
    sidecar = Sidecar(load(file, {}), environment={})
    going = SourceOrders(resyncs=(Resync("public.customer", Stamp(1, 0, "crm"), 1),))
    with sidecar.store.transaction() as tx:
        tx.save_orders("crm", going)
    (reading,) = sidecar.queries.sources()
    assert reading.orders == going, "the merging thread has not taken it up, and still it is to be done"
    with sidecar.store.transaction() as tx:
        tx.save_orders("crm", SourceOrders())
    (reading,) = sidecar.queries.sources()
    assert reading.orders.resyncs == ()
