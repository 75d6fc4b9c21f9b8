"""What the systems of the model hold: a field of every merge type, a group, a check, rules, and three replica identities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cdc_merge.conflicts.rules.selection import ruled
from cdc_merge.model import Json, Value
from cdc_merge.model.plan import Check, EntityPlan, FieldPlan, Plan, Rule, TableMap
from tests.laws.systems import BOOLEAN, INTEGER, JOB_ORIGIN, JSONB, TABLE, TEXT, TEXTS, Sheet

ENTITY: Final = "customer"
SECOND: Final = 1_000_000
START_US: Final = 1_790_000_000_000_000
KEYS: Final = ("K1", "K2", "K3")

# ---------------------------------------------------------------- what the systems hold

POOLS: Final[Mapping[str, tuple[Value, ...]]] = {
    "name": ("Li", " li ", "Wu", None),
    "phone": ("1", "2", "3"),
    "remark": ("r", "s", None),
    "segment": ("gold", "new"),
    "points": (5, 7, 12, -1, None),
    "top": (4, 9, None),
    "low": (4, 9),
    "tags": ((), ("a",), ("b",), ("a", "b")),
    "labels": ((), ("a",), ("b",), ("a", "b")),
    "prefs": (Json("{}"), Json('{"c":"x"}'), Json('{"c":"y","n":1}'), Json('{"n":3,"z":true}'), None),
    "active": (True, False, None),
    "stage": ("draft", "sent", "void", "paid", "odd"),
    "notes": ("x", "xy", "xyz", "q", None),
    "contract": ("c1", "c2", None),
    "city": ("Wuhan", "Xian"),
    "street": ("s0", "s1", None),
}
OIDS: Final = {"points": INTEGER, "top": INTEGER, "low": INTEGER, "tags": TEXTS, "labels": TEXTS, "prefs": JSONB}
COLUMNS: Final = {name: OIDS.get(name, BOOLEAN if name == "active" else TEXT) for name in POOLS}

FIELDS: Final = (
    FieldPlan("name", normalize=("trim", "casefold")),
    FieldPlan("phone", agreement="past"),
    FieldPlan("remark", "lww"),
    FieldPlan("segment", "priority", {"order": ("finance", "crm")}, writer_sources=("crm", "erp")),
    FieldPlan("points", "counter", {"min": 0}, value_type="integer"),
    FieldPlan("top", "max", value_type="integer"),
    FieldPlan("low", "min", value_type="integer"),
    FieldPlan("tags", "set", value_type="array"),
    FieldPlan("labels", "set", {"wins": "remove"}, value_type="array"),
    FieldPlan("prefs", "map", {"keys": {"n": {"merge": "counter"}}}, value_type="json"),
    FieldPlan("active", "flag", {"wins": True}, value_type="boolean"),
    FieldPlan("stage", "lattice", {"order": {"draft": ("sent", "void"), "sent": ("paid",)}}),
    FieldPlan("notes", "append"),
    FieldPlan("contract", "immutable"),
)
ADDRESS: Final = FieldPlan("address", members=("city", "street"))

# Whole old rows; only the key of an old row, a long column not sent again; a key that its rows are not known by.
SHEETS: Final = {
    "crm": Sheet(COLUMNS),
    "erp": Sheet(COLUMNS, identity="no", large="notes"),
    "finance": Sheet({n: t for n, t in COLUMNS.items() if n not in ("name", "city", "street", "prefs")}, identity="id"),
}
NAMES: Final = tuple(SHEETS)
RULES: Final = (
    Rule("drift", f"{ENTITY}.name", tolerance_us=3 * SECOND),
    Rule("auto", f"{ENTITY}.phone", auto=(("crm",), "latest")),
)


def plan_of(deletes: str) -> Plan:
    shape = EntityPlan(
        ENTITY,
        NAMES,
        {name: frozenset(sheet.columns) for name, sheet in SHEETS.items()},
        {field.name: field for field in FIELDS},
        {ADDRESS.name: ADDRESS},
        (Check("fit", "record.low <= record.top", "critical"),),
        deletes=deletes,
    )
    tables = tuple(
        TableMap(n, ENTITY, TABLE, ("no",), {c: c for c in s.columns}, copy_origins=frozenset({JOB_ORIGIN}))
        for n, s in SHEETS.items()
    )
    return ruled(Plan({ENTITY: shape}, tables, RULES, policy=deletes))
