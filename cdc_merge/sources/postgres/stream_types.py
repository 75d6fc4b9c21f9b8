"""The names of the types in the stream's Relation messages, from the catalog.

A Type message gives schema and name only: neither tells an array of `status` from an enum called `_status`. The OID does,
and it means the same type as long as the type exists.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from psycopg.rows import dict_row

from cdc_merge.sources.postgres.connection import connect
from cdc_merge.sources.postgres.reader_settings import ReaderSettings
from cdc_merge.sources.postgres.sqlstates import server_errors
from cdc_merge.sql_files import query


class StreamTypes:
    """Names of types by OID, for the mapped tables of one session; `names` are those that were read when it began.

    A type that appears later is looked up over a connection of its own: the stream waits for it, since to guess would change
    values. SourceUnavailable or SourceRefused. A type that was dropped since has no name here.
    """

    def __init__(self, settings: ReaderSettings, names: Mapping[int, str]) -> None:
        self._settings = settings
        self._names: dict[int, str] = {**names}

    def names_of(self, table: str, oids: Sequence[int]) -> Mapping[int, str]:
        if table not in self._settings.tables:
            return {}
        unknown = [oid for oid in oids if oid not in self._names]
        if unknown:
            self._names.update(dict.fromkeys(unknown, "") | self._look_up(unknown))
        return self._names

    def _look_up(self, oids: Collection[int]) -> dict[int, str]:
        settings = self._settings
        with (
            connect(settings.name, settings.dsn, settings.limits) as connection,
            server_errors(settings.name),
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            rows = cursor.execute(query(__package__, "type_names").encode(), [list(oids)]).fetchall()
        return {row["type_oid"]: row["type_name"] for row in rows}
