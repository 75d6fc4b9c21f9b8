"""A good file becomes settings and a plan: every default, every option, one policy per meaning."""

from __future__ import annotations

from decimal import Decimal
from importlib.resources import files
from pathlib import Path

import pytest

from cdc_merge.config import Settings, load
from cdc_merge.config.settings import (
    DebeziumSource,
    PostgresSourceSettings,
    PostgresStore,
    Secret,
    SqliteStoreSettings,
    store_of,
)
from cdc_merge.model.plan import Check, Rule, TableMap, Unique

SECRET = "geheim-9431"
ENVIRONMENT = {"CRM_DSN": f"host=x password={SECRET}", "ERP_DSN": "host=y", "HOME": "/home/x"}

SMALL = """
sources:
  crm: { type: postgres, dsn: ${CRM_DSN} }
  erp: { type: postgres, dsn: ${ERP_DSN} }
entities:
  customer:
    from:
      crm: { table: customer, key: no, fields: { name: name, points: points } }
      erp: { table: erp.partner, key: code, fields: { points: bonus, name: title } }
"""

LARGE = """
store: sqlite:///var/lib/cdc-merge/state.db
http: { listen: "[::1]:9000" }
settle: 1h30m
clock: { max_ahead: 250ms }
history: { keep_folded: 5m, retention: 1w }
sources:
  crm:
    type: postgres
    dsn_file: crm.dsn
    slot: my_slot
    publication: my_publication
    snapshot: never
    copies: { origins: [sync], actors: [etl] }
    actor: { column: updated_by, always_written: true }
  erp: { type: postgres, dsn: "${ERP_DSN}" }
entities:
  customer:
    from:
      crm:
        table: public.customer
        key: [region, customer_no]
        fields: { name: name, phone: mobile, points: points, tags: tags, level: level, province: province, city: city }
      erp:
        table: erp.partner
        key: [area, code]
        fields: { name: partner_name, phone: tel, points: bonus, stage: stage }
    fields:
      name:   { merge: lww }
      phone:  { merge: mv, normalize: [trim, digits], severity: high, agreement: past }
      points: { merge: counter, min: 0, max: 99.5 }
      level:  { merge: mv, agreement: false, writers: { sources: [crm], actors: [manager] } }
      tags:   { merge: set, separator: ";", wins: remove }
      stage:  { merge: lattice, order: { draft: [approved, rejected], approved: shipped } }
      city:   { merge: lww, normalize: [casefold] }
    groups:
      address: { fields: [province, city], merge: priority, order: [crm, erp], severity: low }
    checks: [ { name: limit, expr: "record.points <= 100", severity: critical } ]
    unique: [ { fields: phone, normalize: [digits], when: "record.level != 'closed'", severity: high } ]
    deletes: update_wins
    on_missing: report
rules:
  - name: second-look
    on: customer.points
    when: "abs(new - old) > 0.05 * old"
    severity: critical
    decide: { approve: [[sales_manager], finance], sla: 4h }
  - { name: drift, on: customer.phone, tolerance: 10m }
  - { name: names, on: "*.name", decide: { auto: [ { prefer: [crm, erp] }, latest ] } }
notify: [ { type: mail, to: someone } ]
access: { tokens_file: tokens, roles: { finance: [ann] } }
"""


def loaded(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> Settings:
    file = tmp_path / "cdc-merge.yaml"
    file.write_text(text, encoding="utf-8")
    (tmp_path / "crm.dsn").write_text(f"host=z password={SECRET}\n", encoding="utf-8")
    return load(file, ENVIRONMENT if environment is None else environment)


def test_a_small_file_gets_every_default_of_the_contract(tmp_path: Path) -> None:
    settings = loaded(tmp_path, SMALL)
    crm = settings.sources["crm"]
    assert isinstance(crm, PostgresSourceSettings)
    assert (crm.slot, crm.publication, crm.snapshot) == ("cdc_merge_crm", "cdc_merge", "initial")
    assert settings.listen == ("127.0.0.1", 8787)
    assert (settings.keep_folded_us, settings.retention_us) == (600_000_000, 7_776_000_000_000)
    assert (settings.plan.settle_us, settings.plan.max_ahead_us) == (2_000_000, 5_000_000)
    entity = settings.plan.entities["customer"]
    assert (entity.deletes, entity.on_missing) == ("review", "ignore")
    name = entity.fields["name"]
    assert (name.merge, name.agreement, name.severity, name.normalize) == ("mv", "on", "medium", ())
    assert settings.warnings == ()


@pytest.mark.parametrize(
    ("environment", "path"),
    [
        ({"STATE_DIRECTORY": "/var/lib/a:/b", "XDG_STATE_HOME": "/x", "HOME": "/h"}, "/var/lib/a/state.db"),
        ({"XDG_STATE_HOME": "/x", "HOME": "/h"}, "/x/cdc-merge/state.db"),
        ({"HOME": "/h"}, "/h/.local/state/cdc-merge/state.db"),
        ({}, ".cdc-merge/state.db"),
    ],
)
def test_without_a_store_the_state_directory_has_one(tmp_path: Path, environment: dict[str, str], path: str) -> None:
    settings = loaded(tmp_path, SMALL, {"CRM_DSN": "a", "ERP_DSN": "b"} | environment)
    assert settings.store == SqliteStoreSettings(Path(path))


def test_a_large_file_keeps_everything_that_it_says(tmp_path: Path) -> None:
    settings = loaded(tmp_path, LARGE)
    assert settings.store == SqliteStoreSettings(Path("/var/lib/cdc-merge/state.db"))
    assert settings.listen == ("::1", 9000)
    assert (settings.plan.settle_us, settings.plan.max_ahead_us) == (5_400_000_000, 250_000)
    assert (settings.keep_folded_us, settings.retention_us) == (300_000_000, 604_800_000_000)
    crm = settings.sources["crm"]
    assert isinstance(crm, PostgresSourceSettings)
    assert (crm.slot, crm.publication, crm.snapshot) == ("my_slot", "my_publication", "never")
    assert crm.dsn == Secret(f"host=z password={SECRET}")
    assert crm.tables == ("public.customer",)
    assert settings.access.tokens_file == tmp_path / "tokens"
    assert settings.access.roles == {"finance": ("ann",)}
    assert [(channel.type, channel.options) for channel in settings.notify] == [("mail", {"to": "someone"})]


def test_fields_and_groups_carry_their_merge_types_own_settings(tmp_path: Path) -> None:
    entity = loaded(tmp_path, LARGE).plan.entities["customer"]
    options = {name: field.options for name, field in entity.fields.items()}
    assert options["points"] == {"min": 0, "max": Decimal("99.5")}
    assert options["tags"] == {"separator": ";", "wins": "remove"}
    assert options["stage"] == {"order": {"draft": ("approved", "rejected"), "approved": ("shipped",)}}
    phone, level = entity.fields["phone"], entity.fields["level"]
    assert (phone.normalize, phone.severity, phone.agreement) == (("trim", "digits"), "high", "past")
    assert (level.agreement, level.writer_sources, level.writer_actors) == ("off", ("crm",), ("manager",))


def test_the_keys_of_a_map_say_only_what_differs_from_the_map(tmp_path: Path) -> None:
    keys = "{ visits: { merge: counter, min: 0 }, home: { merge: map, keys: { city: { severity: low } } } }"
    text = SMALL + f"    fields: {{ name: {{ merge: map, severity: high, keys: {keys} }} }}\n"
    assert loaded(tmp_path, text).plan.entities["customer"].fields["name"].options == {
        "keys": {
            "visits": {"merge": "counter", "normalize": (), "min": 0},
            "home": {
                "merge": "map",
                "normalize": (),
                "keys": {"city": {"merge": "mv", "normalize": (), "severity": "low"}},
            },
        }
    }


def test_a_groups_members_are_no_fields_of_their_own_and_keep_their_normalize(tmp_path: Path) -> None:
    entity = loaded(tmp_path, LARGE).plan.entities["customer"]
    assert entity.fields.keys() & {"province", "city"} == set()
    address = entity.groups["address"]
    assert (address.merge, address.members, address.severity) == ("priority", ("province", "city"), "low")
    assert address.options == {"normalize": {"city": ("casefold",)}, "order": ("crm", "erp")}
    assert "city" in entity.mapped["crm"]
    assert "city" not in entity.mapped["erp"]


def test_every_mapped_field_is_planned_in_the_order_of_the_file(tmp_path: Path) -> None:
    entity = loaded(tmp_path, LARGE).plan.entities["customer"]
    assert list(entity.fields) == ["name", "phone", "points", "tags", "level", "stage"]
    assert entity.sources == ("crm", "erp")


def test_actor_and_copies_of_a_source_are_in_each_of_its_table_maps(tmp_path: Path) -> None:
    crm, erp = loaded(tmp_path, LARGE).plan.tables
    assert (crm.actor_column, crm.actor_always_written) == ("updated_by", True)
    assert (crm.copy_origins, crm.copy_actors) == (frozenset({"sync"}), frozenset({"etl"}))
    assert crm.key == ("region", "customer_no")
    assert erp == TableMap(
        source="erp",
        entity="customer",
        table="erp.partner",
        key=("area", "code"),
        fields={"name": "partner_name", "phone": "tel", "points": "bonus", "stage": "stage"},
    )


def test_a_table_without_a_schema_is_in_public(tmp_path: Path) -> None:
    assert [table.table for table in loaded(tmp_path, SMALL).plan.tables] == ["public.customer", "erp.partner"]


def test_checks_unique_and_rules_reach_the_plan(tmp_path: Path) -> None:
    plan = loaded(tmp_path, LARGE).plan
    entity = plan.entities["customer"]
    assert entity.checks == (Check("limit", "record.points <= 100", "critical"),)
    assert entity.unique == (Unique(("phone",), ("digits",), "record.level != 'closed'", "high"),)
    assert (entity.deletes, entity.on_missing) == ("update_wins", "report")
    approve = (("sales_manager",), ("finance",))
    assert plan.rules == (
        Rule("second-look", "customer.points", "abs(new - old) > 0.05 * old", "critical", None, (), approve),
        Rule("drift", "customer.phone", None, None, 600_000_000),
        Rule("names", "*.name", None, None, None, (("crm", "erp"), "latest")),
    )


def test_settings_that_this_version_does_not_act_on_are_warned_about(tmp_path: Path) -> None:
    ignored = [line.split(": ")[1] for line in loaded(tmp_path, LARGE).warnings if "does not act on it" in line]
    assert ignored == [
        "rules[0].decide.approve",
        "rules[0].decide.sla",
        "notify",
    ]


@pytest.mark.parametrize(("merge", "warned"), [("counter", True), ("set", True), ("mv", False)])
def test_counters_and_sets_that_two_sources_share_want_marked_copies(tmp_path: Path, merge: str, warned: bool) -> None:
    text = SMALL + f"    fields: {{ points: {{ merge: {merge} }} }}\n"
    assert any("its copies must be marked" in line for line in loaded(tmp_path, text).warnings) is warned
    marked = text.replace("dsn: ${ERP_DSN}", "dsn: ${ERP_DSN}, copies: { origins: [sync] }")
    assert loaded(tmp_path, marked).warnings == ()


def test_a_source_that_nothing_maps_is_warned_about(tmp_path: Path) -> None:
    text = SMALL.replace("entities:", "  oa: { type: postgres, dsn: x }\nentities:")
    (warning,) = loaded(tmp_path, text).warnings
    assert "sources.oa: no entity maps this source" in warning


def test_secrets_show_in_no_repr(tmp_path: Path) -> None:
    settings = loaded(tmp_path, LARGE.replace("dsn_file: crm.dsn", "dsn: ${CRM_DSN}"))
    assert SECRET not in repr(settings)
    assert SECRET not in repr(store_of(f"postgresql://u:{SECRET}@h/d"))
    assert isinstance(store_of("postgresql://h/d"), PostgresStore)


def test_the_policy_is_the_same_for_the_same_meaning(tmp_path: Path) -> None:
    policy = loaded(tmp_path, SMALL).plan.policy
    assert policy.startswith("sha256:")
    assert loaded(tmp_path, "# a comment\nsettle: 9s\n" + SMALL).plan.policy == policy
    assert loaded(tmp_path, SMALL + "    fields: { name: { merge: mv } }\n").plan.policy == policy


@pytest.mark.parametrize(
    "extra",
    [
        "    fields: { name: { merge: lww } }\n",
        "    fields: { name: { normalize: [trim] } }\n",
        "    deletes: local\n",
        "rules: [ { name: a, on: customer } ]\n",
        "rules: [ { name: a, on: customer, decide: { votes: 2, approve: [a] } } ]\n",
    ],
)
def test_the_policy_changes_with_the_meaning(tmp_path: Path, extra: str) -> None:
    assert loaded(tmp_path, SMALL + extra).plan.policy != loaded(tmp_path, SMALL).plan.policy


def test_the_demos_own_file_is_good_and_warns_of_nothing() -> None:
    environment = {name: "x" for name in ("CRM_DSN", "ERP_DSN", "FINANCE_DSN")}
    environment |= {"CDC_MERGE_STORE": "sqlite:///tmp/state.db", "CDC_MERGE_LISTEN": "127.0.0.1:0"}
    with_demo = Path(str(files("cdc_merge.demo") / "cdc-merge.yaml"))
    assert load(with_demo, environment).warnings == ()


def test_later_kinds_of_sources_are_read_although_this_version_refuses_them() -> None:
    assert DebeziumSource("oa", ("broker:9092",), ("t",), 5_000_000, ()).type == "debezium"
