"""The table that most reader tests read: its DDL, its rows in the database, and writers that keep changing it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from tests.system.postgres.reading import run

TABLES = {"public.customer": ("id", "name", "points")}
SETUP = (
    "CREATE TABLE customer (id int PRIMARY KEY, name text, points int)",
    "ALTER TABLE customer REPLICA IDENTITY FULL",
    "CREATE PUBLICATION cdc_merge FOR TABLE customer",
)


@contextmanager
def writers(dsn: str, count: int = 2) -> Iterator[threading.Event]:
    """People who keep editing: single edits and larger transactions, deletes, rollbacks, some without waiting for disk.
    The event is set when every writer has committed at least once."""
    ended, begun = threading.Event(), threading.Event()
    barrier = threading.Barrier(count, action=begun.set)

    def work(number: int) -> None:
        with psycopg.connect(dsn) as connection:
            connection.execute("SELECT set_config('synchronous_commit', %s, false)", ["off" if number % 2 else "on"])
            connection.commit()
            step = 0
            while not ended.is_set():
                base = (number + 1) * 1_000_000 + step * 10
                add = "INSERT INTO customer SELECT g, 'new', 0 FROM generate_series(%s::int, %s::int) g"
                connection.execute(add, [base, base + 3])
                connection.execute("UPDATE customer SET points = points + 1 WHERE id %% 7 = %s", [step % 7])
                connection.execute("DELETE FROM customer WHERE id = %s", [base + 1])
                if step % 5 == 4:
                    connection.rollback()
                else:
                    connection.commit()
                if step == 0:
                    barrier.wait(10)
                step += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield begun
    finally:
        ended.set()
        for thread in threads:
            thread.join(30)


def in_the_database(dsn: str) -> dict[bytes, dict[str, bytes | None]]:
    return {
        row[0].encode(): {"id": row[0].encode(), "name": row[1].encode(), "points": row[2].encode()}
        for row in run(dsn, "SELECT id::text, name, points::text FROM customer")
    }
