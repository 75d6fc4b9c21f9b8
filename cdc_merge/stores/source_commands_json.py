"""The commands of a source as the stores' JSON text."""

from __future__ import annotations

import json
from typing import Any

from cdc_merge.model import Stamp
from cdc_merge.model.source_commands import Resync, SourceOrders


def encode_orders(orders: SourceOrders) -> str:
    return json.dumps(orders._asdict() | {"resyncs": [[*resync] for resync in orders.resyncs]})


def decode_orders(text: str) -> SourceOrders:
    """The text of this version or an earlier one: fields are only ever added at the end."""
    document = json.loads(text)
    return SourceOrders(**document | {"resyncs": tuple(_resync(*items) for items in document["resyncs"])})


def _resync(table: str, since: list[Any], *items: Any) -> Resync:
    resync = Resync(table, Stamp(*since), *items)
    return resync._replace(after=None if resync.after is None else tuple(resync.after), keys=tuple(resync.keys))
