"""A publication that is not what it was is never a silent gap: while we read, while we are away, whatever was altered."""

from __future__ import annotations

import json

import pytest

from cdc_merge.errors import SourceRefused
from cdc_merge.model import Idle, Position
from cdc_merge.sources.postgres.publication_members import (
    check_publication_members,
    describe_changes,
    publication_changes,
)
from cdc_merge.sources.postgres.reader_limits import ReaderLimits
from cdc_merge.sources.postgres.slot_monitor import MonitorTarget, SlotMonitor
from tests.system.postgres.customer_table import SETUP, TABLES
from tests.system.postgres.reading import Reading, run, wal_lsn

OFTEN = ReaderLimits(health_every_s=0.1)
NAME = "cdc_merge"
AWAY = {
    f"DROP PUBLICATION {NAME}; CREATE PUBLICATION {NAME} FOR TABLE customer": "was dropped and created again",
    f"ALTER PUBLICATION {NAME} DROP TABLE customer; ALTER PUBLICATION {NAME} ADD TABLE customer": (
        "public.customer left it and came back"
    ),
    f"ALTER PUBLICATION {NAME} SET TABLE customer WHERE (id > 10)": "public.customer has another row filter",
    f"ALTER PUBLICATION {NAME} SET TABLE customer (id, name, points)": "public.customer has another column list",
    f"ALTER PUBLICATION {NAME} SET (publish = 'insert'); ALTER PUBLICATION {NAME} SET"
    " (publish = 'insert, update, delete, truncate')": "was altered, and then altered back",
    f"ALTER PUBLICATION {NAME} SET (publish = 'insert, update, delete')": "does not publish truncate any more",
}
HARMLESS = (
    "CREATE TABLE other (id int PRIMARY KEY)",
    f"ALTER PUBLICATION {NAME} ADD TABLE other",
    "ALTER TABLE customer ADD COLUMN later text",
    f"ALTER PUBLICATION {NAME} SET (publish = 'insert, update, delete, truncate')",
)


@pytest.fixture
def dsn(database: str) -> str:
    run(database, *SETUP)
    return database


def followed(dsn: str) -> Position:
    """A position of a reader that was stopped, with what it knew of the publication."""
    with Reading(dsn, TABLES).start() as reading:
        reading.until_copied()
        reading.until(
            lambda: any(isinstance(each, Idle) and each.membership for each in reading.deliveries),
            "the membership was delivered",
        )
        describe_changes = next(
            each.membership for each in reading.deliveries if isinstance(each, Idle) and each.membership
        )
        position = reading.position
    assert position is not None
    assert json.loads(describe_changes)["tables"].keys() == set(TABLES)
    return position._replace(membership=describe_changes)


@pytest.mark.parametrize(("altered", "said"), AWAY.items(), ids=[*AWAY.values()])
def test_a_publication_altered_while_the_reader_was_stopped_is_reported_and_nothing_is_read(
    dsn: str, altered: str, said: str
) -> None:
    position = followed(dsn)
    run(dsn, *altered.split("; "), "INSERT INTO customer VALUES (1, 'a', 0)")
    with Reading(dsn, TABLES).start(position) as reading:
        refusal = reading.refusal()
        assert refusal.problem == "publication_changed"
        assert refusal.sentence == f"Source crm: publication {NAME} has changed: {said}."
        assert "source resync crm" in refusal.hint
        assert reading.take() == []


@pytest.mark.parametrize(("altered", "said"), AWAY.items(), ids=[*AWAY.values()])
def test_a_publication_altered_while_it_is_read_stops_the_stream(dsn: str, altered: str, said: str) -> None:
    with Reading(dsn, TABLES, limits=OFTEN).start() as reading:
        reading.until_copied()
        reading.until(
            lambda: any(isinstance(each, Idle) and each.membership for each in reading.deliveries),
            "the membership was delivered",
        )
        run(dsn, "; ".join(["BEGIN", *altered.split("; "), "COMMIT"]))
        refusal = reading.refusal()
        assert (refusal.problem, refusal.sentence) == (
            "publication_changed",
            f"Source crm: publication {NAME} has changed: {said}.",
        )


def test_an_alteration_that_only_adds_is_stored_and_stops_nothing(dsn: str) -> None:
    position = followed(dsn)
    run(dsn, f"ALTER PUBLICATION {NAME} OWNER TO postgres", *HARMLESS[:3])
    with Reading(dsn, TABLES, limits=OFTEN).start(position) as reading:
        reading.until_streaming()
        run(dsn, "INSERT INTO customer (id, name, points) VALUES (1, 'a', 0)")
        reading.until_passed(wal_lsn(dsn))
        assert reading.source.status().problem is None


def test_a_position_without_a_stored_membership_is_resumed_and_stores_it(dsn: str) -> None:
    position = followed(dsn)._replace(membership="")
    run(dsn, f"ALTER PUBLICATION {NAME} DROP TABLE customer", f"ALTER PUBLICATION {NAME} ADD TABLE customer")
    with Reading(dsn, TABLES).start(position) as reading:
        reading.until(
            lambda: any(isinstance(each, Idle) and each.membership for each in reading.deliveries),
            "the membership was delivered",
        )


def test_a_resnapshot_accepts_an_altered_publication(dsn: str) -> None:
    position = followed(dsn)
    run(dsn, f"DROP PUBLICATION {NAME}", f"CREATE PUBLICATION {NAME} FOR TABLE customer")
    with Reading(dsn, TABLES) as reading:
        reading.source.accept_loss(accepts=True)  # type: ignore[attr-defined] # ports.ReadsAgain
        reading.start(position)
        reading.until_streaming()
        now = reading.until(
            lambda: [each.membership for each in reading.deliveries if isinstance(each, Idle) and each.membership],
            "the membership was delivered",
        )
        assert describe_changes(publication_changes(position.membership, now[-1])) == "was dropped and created again"


def test_a_table_dropped_and_created_again_is_a_changed_publication(dsn: str) -> None:
    position = followed(dsn)
    run(dsn, "DROP TABLE customer", *SETUP[:1], f"ALTER PUBLICATION {NAME} ADD TABLE customer")
    with Reading(dsn, TABLES).start(position) as reading:
        assert "public.customer was dropped and created again" in reading.refusal().sentence


def test_older_servers_report_the_same(old_server: object) -> None:
    dsn = old_server.dsn()  # type: ignore[attr-defined] # the fixture's server
    run(dsn, "DROP TABLE IF EXISTS t", "CREATE TABLE t (id int PRIMARY KEY)", "DROP PUBLICATION IF EXISTS p")
    run(dsn, "CREATE PUBLICATION p FOR TABLES IN SCHEMA public")
    monitor = SlotMonitor("crm", dsn, MonitorTarget("s", "p", ("public.t",)))
    try:
        before = monitor.health().membership
        assert publication_changes(before, monitor.health().membership) == []
        run(dsn, "ALTER PUBLICATION p DROP TABLES IN SCHEMA public", "ALTER PUBLICATION p ADD TABLES IN SCHEMA public")
        assert (
            describe_changes(publication_changes(before, monitor.health().membership))
            == "public.t left it and came back"
        )
        run(dsn, "DROP PUBLICATION p")
        assert describe_changes(publication_changes(before, monitor.health().membership)) == "was dropped"
    finally:
        monitor.close()
        run(dsn, "DROP TABLE t")


def test_an_unknown_membership_is_not_compared() -> None:
    check_publication_members("crm", NAME, "", "")
    known = json.dumps({"oid": "1", "generation": "1", "owner": "1", "published": [], "via_root": True, "tables": {}})
    check_publication_members("crm", NAME, "", known)
    check_publication_members("crm", NAME, known, known)
    with pytest.raises(SourceRefused, match="was dropped"):
        check_publication_members("crm", NAME, known, "")
