# ruff: noqa: E501 - tables in one line
"""What `init` proposes: the right tables, keys and fields of three systems that say everything in their own words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from cdc_merge.cli.main import run
from cdc_merge.config import load
from cdc_merge.demo.servers import DemoServer
from cdc_merge.doctor.proposal.candidates import NEAREST, pairs_of
from cdc_merge.doctor.proposal.catalog_sample import ColumnSeen, EntityProposed, TableSeen
from cdc_merge.doctor.proposal.matching import propose, propose_entities
from cdc_merge.doctor.proposal.sampling import sample_tables
from cdc_merge.doctor.proposal.similarity import of_names, of_types, of_values
from cdc_merge.doctor.proposal.yaml_writer import config_text
from tests.support.databases import fresh_database

SQL = Path(__file__).parents[2] / "cdc_merge" / "demo" / "sql"
TEXT, INT, DATE, UUID = (25, "text"), (23, "int4"), (1082, "date"), (2950, "uuid")


def table(source: str, name: str, columns: Mapping[str, tuple[int, str]], *keys: str, made: str = "") -> TableSeen:
    seen = tuple(ColumnSeen(column, *kind, is_made=column == made) for column, kind in columns.items())
    return TableSeen(source, f"public.{name}", seen, (keys[0],), tuple((key,) for key in keys), 0)


@pytest.fixture(scope="module")
def systems(clinic: DemoServer) -> Iterator[Mapping[str, str]]:
    """The demo's three systems; name → DSN."""
    with ExitStack() as stack:
        dsns = {}
        for name in ("crm", "erp", "finance"):
            dsns[name] = stack.enter_context(fresh_database(clinic))
            with psycopg.connect(dsns[name], autocommit=True) as connection:
                connection.execute((SQL / f"{name}.sql").read_text().encode())
        yield dsns


@pytest.fixture
def entities(systems: Mapping[str, str]) -> dict[str, EntityProposed]:
    found = propose_entities([seen for name, dsn in systems.items() for seen in sample_tables(name, dsn)])
    return {entity.name: entity for entity in found}


def test_three_systems_find_their_customers_orders_and_contracts(entities: Mapping[str, EntityProposed]) -> None:
    assert {name: {s: t.name for s, t in entity.tables.items()} for name, entity in entities.items()} == {
        "customer": {"crm": "public.customer", "erp": "erp.partner", "finance": "fin.debtor"},
        "sales_order": {"crm": "public.sales_order", "erp": "erp.order_head"},
        "contract": {"crm": "public.contract", "finance": "fin.agreement"},
    }


def test_business_keys_are_preferred_to_numbers_that_the_database_makes(entities: Mapping[str, EntityProposed]) -> None:
    assert entities["customer"].keys == {"crm": ("customer_no",), "erp": ("code",), "finance": ("debtor_no",)}
    assert entities["sales_order"].keys == {"crm": ("order_no",), "erp": ("order_no",)}
    assert not entities["customer"].doubts


def test_fields_are_found_behind_other_words(entities: Mapping[str, EntityProposed]) -> None:
    fields = {field.name: field.columns for field in entities["customer"].fields}
    assert fields["mobile"] == {"crm": "mobile", "erp": "tel", "finance": "contact_phone"}
    assert fields["points"] == {"crm": "points", "erp": "bonus"}
    assert fields["payment_days"] == {"erp": "payment_days", "finance": "days_to_pay"}
    assert {f.name: f.columns["finance"] for f in entities["contract"].fields}["balance"] == "open_amount"


def test_the_file_is_one_that_check_config_accepts(
    systems: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cdc-merge.yaml"
    monkeypatch.setenv("HOME", str(tmp_path))
    given = []
    for name, dsn in systems.items():
        secret = f"{dsn} password=geheim"
        monkeypatch.setenv(f"{name.upper()}_DSN", secret)
        given += ["--source", f"{name}={secret}"]
    assert run(["--config", str(file), "init", *given, "--dry-run"]) == 0
    assert not file.exists()
    shown = capsys.readouterr().out
    assert run(["--config", str(file), "init", *given]) == 0
    assert file.read_text() == shown
    assert "geheim" not in shown
    assert run(["--config", str(file), "check-config"]) == 0
    assert run(["--config", str(file), "init", *given]) == 1
    assert run(["--config", str(file), "init", *given, "--force"]) == 0


def test_one_system_alone_gets_an_entity_per_table_with_a_key() -> None:
    people = table("hr", "Staff members", {"id": INT, "full name": TEXT, "生日": DATE}, "id")
    found = propose_entities([people, table("hr", "log", {"line": TEXT}, "line")])
    assert [(entity.name, entity.keys) for entity in found] == [("Staff_members", {"hr": ("id",)})]
    assert [field.name for field in found[0].fields] == ["full_name", "生日"]


def test_names_with_dots_are_written_as_the_configuration_reads_them(tmp_path: Path) -> None:
    client = table("a", "client", {"no": TEXT, "name": TEXT}, "no")._replace(name="my.app.client", schema="my.app")
    items = table("a", "order.items", {"no": TEXT, "title": TEXT}, "no")
    (tmp_path / "x.yaml").write_text(config_text(["a"], propose_entities([client, items])))
    source = load(tmp_path / "x.yaml", {"HOME": "/h", "A_DSN": "a"}).sources["a"]
    assert source.tables == ("my.app.client", "public.order.items")


def test_a_key_that_only_one_database_knows_is_proposed_with_a_doubt() -> None:
    one = table("a", "customer", {"id": INT, "name": TEXT, "phone": TEXT}, "id", made="id")
    other = table("b", "customer", {"id": INT, "name": TEXT, "mobile": TEXT}, "id", made="id")
    (entity,) = propose_entities([one, other])
    assert entity.keys == {"a": ("id",), "b": ("id",)}
    assert len(entity.doubts) == 2


def test_tables_whose_keys_cannot_be_equal_are_left_out_with_the_reason() -> None:
    one = table("a", "customer", {"no": TEXT, "name": TEXT, "phone": TEXT}, "no")
    other = table("b", "customer", {"id": INT, "name": TEXT, "phone": TEXT}, "id")
    keyless = other._replace(primary_key=(), unique_keys=())
    for second, reason in (
        (other, "a has no text; b has id integer"),
        (keyless, "b public.customer has no primary key"),
    ):
        proposal = propose([one, second])
        assert proposal.entities == []
        (sentence,) = proposal.left_out
        assert reason in sentence
        assert f"# left out: {sentence}" in config_text(["a", "b"], [], proposal.left_out)


def test_large_schemas_are_compared_by_their_nearest_tables_and_the_right_ones_are_found() -> None:
    columns = {"name": TEXT, "partner_id": INT, "amount": INT, "state": TEXT, "note": TEXT}

    def schema(source: str, count: int) -> list[TableSeen]:
        return [table(source, f"mod_{n}_line", {f"code_{n}": TEXT, **columns}, f"code_{n}") for n in range(count)] + [
            table(source, {"a": "customer", "b": "client"}[source], {"no": TEXT, "phone": TEXT, "born": DATE}, "no")
        ]

    tables = [*schema("a", 400), *schema("b", 400)]
    pairs = list(pairs_of(tables))
    assert len(pairs) <= 2 * NEAREST * 401
    assert len(pairs) == len(set(pairs))
    steps: list[tuple[int, int]] = []
    entities = propose(tables, lambda done, total: steps.append((done, total))).entities
    assert steps[-1] == (len(pairs), len(pairs))
    found = {entity.tables["a"].name: entity.tables["b"].name for entity in entities}
    assert found == {f"public.mod_{n}_line": f"public.mod_{n}_line" for n in range(400)} | {
        "public.customer": "public.client"
    }


def test_tables_that_have_nothing_in_common_are_not_proposed() -> None:
    one = table("a", "customer", {"no": TEXT, "phone": TEXT}, "no")
    other = table("b", "warehouse", {"hall": TEXT, "height": INT}, "hall")
    assert propose_entities([one, other]) == []


def test_values_in_common_join_what_names_do_not() -> None:
    values = frozenset(f"C{number}" for number in range(50))

    def seen(source: str, name: str, key: str, other: str) -> TableSeen:
        plain = table(source, name, {key: TEXT, other: TEXT}, key)
        return plain._replace(columns=tuple(column._replace(sample=values) for column in plain.columns))

    without = [
        table("a", "kunde", {"kdnr": TEXT, "ort": TEXT}, "kdnr"),
        table("b", "klant", {"xyz": TEXT, "plaats": TEXT}, "xyz"),
    ]
    assert propose_entities(without) == []
    (entity,) = propose_entities([seen("a", "kunde", "kdnr", "ort"), seen("b", "klant", "xyz", "plaats")])
    assert entity.keys == {"a": ("kdnr",), "b": ("xyz",)}


def test_values_that_could_never_be_compared_are_never_mapped() -> None:
    one = table("a", "customer", {"no": TEXT, "name": TEXT, "born": DATE}, "no")
    other = table("b", "customer", {"no": TEXT, "name": TEXT, "born": INT}, "no")
    (entity,) = propose_entities([one, other])
    assert [field.name for field in entity.fields] == ["name"]


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("mobile", "tel", True),
        ("customerName", "partner_name", True),
        ("order_nr", "OrderNumber", True),
        ("cities", "town", True),
        ("phone", "contact_phone", True),
        ("phone", "email", False),
        ("amount", "status", False),
        ("名称", "金额", False),
    ],
)
def test_names_are_compared_by_what_they_mean(one: str, other: str, alike: bool) -> None:
    assert (of_names(one, other, ("customer", "partner")) >= 0.45) is alike


def test_few_values_in_common_prove_nothing() -> None:
    assert of_values(frozenset({"yes", "no"}), frozenset({"yes", "no"})) == 0.0
    assert of_types("text", "date") == 0.0
