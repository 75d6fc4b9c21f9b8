"""Names of tables in the file: quoted as in SQL where they hold dots, and written back the same way."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdc_merge.config import Settings, load
from cdc_merge.config.settings import PostgresSourceSettings
from cdc_merge.config.table_names import TableName, parse
from cdc_merge.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "schema", "name"),
    [
        ("client", "public", "client"),
        ("app.client", "app", "client"),
        ("App.Odd name", "App", "Odd name"),
        ('"my.app".client', "my.app", "client"),
        ('"my.app"."client"', "my.app", "client"),
        ('"order.items"', "public", "order.items"),
        ('app."a.b""c"', "app", 'a.b"c'),
        ('we"ird', "public", 'we"ird'),
        ("{draft}", "public", "{draft}"),
    ],
)
def test_a_table_is_named_as_in_sql(text: str, schema: str, name: str) -> None:
    assert parse(text) == TableName(schema, name)
    assert parse(TableName(schema, name).written) == TableName(schema, name)


@pytest.mark.parametrize("text", ["a.b.c", '"my.app".a.b', '"open.client', ".client", "app.", '""', '"a"b'])
def test_what_is_no_name_of_a_table_is_refused(text: str) -> None:
    assert parse(text) is None


FILE = """
sources: { crm: { type: postgres, dsn: a } }
entities:
  client: { from: { crm: { table: 'FIRST', key: no, fields: { name: name } } } }
  item: { from: { crm: { table: 'SECOND', key: no, fields: { name: name } } } }
"""


def settings(directory: Path, first: str, second: str) -> Settings:
    (directory / "x.yaml").write_text(FILE.replace("FIRST", first).replace("SECOND", second))
    return load(directory / "x.yaml", {"HOME": "/h"})


def test_the_schema_is_kept_where_the_first_dot_does_not_end_it(tmp_path: Path) -> None:
    source = settings(tmp_path, '"my.app".client', '"order.items"').sources["crm"]
    assert isinstance(source, PostgresSourceSettings)
    assert source.tables == ("my.app.client", "public.order.items")
    assert source.schemas == {"my.app.client": "my.app"}


@pytest.mark.parametrize(
    ("second", "sentence"),
    [('"my.app"."client"', "is mapped by the entity client already"), ('my."app.client"', "without quotes")],
)
def test_two_tables_that_could_be_confused_are_refused(tmp_path: Path, second: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        settings(tmp_path, '"my.app".client', second)
    assert sentence in str(refused.value.problems)


def test_a_dotted_name_without_quotes_is_refused_with_the_way_to_write_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        settings(tmp_path, "my.app.client", "item")
    assert "quote a name that holds a dot as in SQL: '\"my.schema\".table'" in str(refused.value.problems[0])
