# ruff: noqa: E501 - SQL on one line
"""Changes since the last examination: publication, slot, privileges; each is reported, and removed by its fix."""

from __future__ import annotations

from cdc_merge.doctor.source_facts import Facts, PublishedTables
from cdc_merge.model import Position
from tests.doctor.patient import Patient
from tests.doctor.slot_readers import CREATE, read_by
from tests.system.postgres.reading import wait_for


def remembered(patient: Patient) -> Position:
    """A position that knows the publication as it is."""
    return patient.position()._replace(membership=patient.facts().one(PublishedTables).membership)


ALTERED = {
    "was dropped and created again": ("DROP PUBLICATION cdc_merge", "CREATE PUBLICATION cdc_merge FOR TABLE app.customer WITH (publish_via_partition_root = true)"),
    "app.customer left it and came back": ("ALTER PUBLICATION cdc_merge DROP TABLE app.customer", "ALTER PUBLICATION cdc_merge ADD TABLE app.customer"),
    "app.customer has another row filter": ("ALTER PUBLICATION cdc_merge SET TABLE app.customer WHERE (no > '1')",),
    "app.customer has another column list": ("ALTER PUBLICATION cdc_merge SET TABLE app.customer (no, name, points)",),
    "does not publish delete, truncate any more": ("ALTER PUBLICATION cdc_merge SET (publish = 'insert, update')",),
}  # fmt: skip


def test_a_publication_that_is_not_what_it_was_is_reported_until_it_is_read_again(either: Patient) -> None:
    for said, made_by in ALTERED.items():
        either.wanted["position"] = remembered(either)
        assert either.severities("PUB10") == {"": "ok"}
        either.sql(*made_by)
        (result,) = [check for check in either.checks("PUB10") if check.severity == "fail"]
        assert said in result.seen
        assert result.fix.sql == ("-- If the change is intended: cdc-merge source resync crm",)
        either.wanted["position"] = remembered(either)  # what a resync leaves behind
        assert either.severities("PUB10") == {"": "ok"}


def test_a_publication_of_which_nothing_is_remembered_is_not_judged(patient: Patient) -> None:
    patient.wanted["position"] = patient.position()
    patient.sql(*ALTERED["was dropped and created again"])
    assert patient.severities("PUB10") == {"": "ok"}


def test_a_position_of_another_slot_is_reported_and_the_old_slot_dropped_by_the_fix(patient: Patient) -> None:
    patient.sql(CREATE, "SELECT pg_create_logical_replication_slot('before_{slot}', 'pgoutput')")
    patient.wanted["position"] = patient.position()._replace(slot=f"before_{patient.slot}")
    (result,) = patient.checks("POS06")
    assert result.severity == "warn"
    patient.apply_fix(result, deciding=True)
    assert patient.sql("SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'before%'") == []
    patient.wanted["position"] = patient.position()
    assert patient.severities("POS06") == {"": "ok"}


def test_a_slot_that_was_dropped_and_created_again_is_another_one(either: Patient) -> None:
    either.sql(CREATE)
    here = either.position()
    either.wanted["position"] = here
    assert either.severities("POS06") == {"": "ok"}
    either.sql(
        "SELECT pg_drop_replication_slot('{slot}')",
        "CHECKPOINT",
        "UPDATE app.customer SET name = 'x'",
        "CHECKPOINT",
        "CHECKPOINT",
        CREATE,
    )
    assert either.severities("POS06") == {"": "fail"}
    either.wanted["position"] = either.position()  # what a resync leaves behind
    assert either.severities("POS06") == {"": "ok"}


def test_who_confirms_what_is_not_on_disk_is_reported(patient: Patient) -> None:
    patient.sql(CREATE)
    here = patient.position()
    patient.wanted["position"] = here
    with read_by(patient, "postgres", "cdc_merge/crm"):
        wait_for(lambda: patient.facts().our_slot().active, "it is read")  # type: ignore[union-attr] # it was created
        assert patient.severities("POS07") == {"": "ok"}
    wait_for(lambda: not patient.facts().our_slot().active, "it is free")  # type: ignore[union-attr] # as above
    patient.sql(
        "UPDATE app.customer SET name = 'x'", "SELECT pg_replication_slot_advance('{slot}', pg_current_wal_flush_lsn())"
    )
    with read_by(patient, "postgres", "cdc_merge/crm"):
        wait_for(lambda: patient.facts().our_slot().active, "it is read again")  # type: ignore[union-attr] # as above
        assert patient.severities("POS07") == {"": "fail"}
        patient.wanted["position"] = patient.position()
        assert patient.severities("POS07") == {"": "ok"}


def test_write_back_without_the_power_to_write_is_reported_and_granted_by_the_fix(either: Patient) -> None:
    assert either.severities("ROL11") == {"": "ok"}
    either.wanted["written"] = ("app.customer",)
    (result,) = either.checks("ROL11")
    assert (result.severity, result.about) == ("fail", "app.customer")
    assert "INSERT, UPDATE, DELETE" in result.seen
    either.apply_fix(result)
    assert either.severities("ROL11") == {"": "ok"}


def test_a_trigger_that_may_rewrite_what_is_written_back_is_reported(patient: Patient) -> None:
    patient.wanted["written"] = ("app.customer",)
    patient.apply_fix(patient.checks("ROL11")[0])
    patient.sql(
        "CREATE FUNCTION app.shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.name := upper(NEW.name); RETURN NEW; END $$",
        "CREATE TRIGGER shout BEFORE UPDATE ON app.customer FOR EACH ROW EXECUTE FUNCTION app.shout()",
    )
    assert patient.severities("ROL11") == {"app.customer": "warn"}
    patient.sql("DROP TRIGGER shout ON app.customer")
    assert patient.severities("ROL11") == {"": "ok"}


def test_every_fact_of_a_well_patient_is_answered(either: Patient) -> None:
    facts: Facts = either.facts()
    assert facts.one(PublishedTables).membership
