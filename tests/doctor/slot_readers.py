"""Sessions that stream from a slot, and the SQL that creates one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from tests.doctor.patient import Patient

CREATE = "SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"


@contextmanager
def read_by(patient: Patient, user: str, name: str) -> Iterator[None]:
    """Somebody streams from the slot."""
    dsn = f"{patient.dsn.replace('user=postgres', f'user={user}')} application_name={name}"
    with psycopg.connect(dsn, replication="database", autocommit=True) as connection:
        options = "(proto_version '1', publication_names 'cdc_merge')"
        connection.pgconn.exec_(f"START_REPLICATION SLOT {patient.slot} LOGICAL 0/0 {options}".encode())
        yield
        connection.close()
