"""Checks that only inform: nothing is at fault, the DBA reads what is there. And the login that a server lets in or not."""

from __future__ import annotations

from cdc_merge.doctor.check_list import run_checks
from cdc_merge.doctor.source_facts import ReplicationLogin, ServerFacts
from tests.doctor.patient import Patient

TRIGGER = (
    "CREATE FUNCTION app.watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'",
    "CREATE EVENT TRIGGER watch_{database} ON ddl_command_end EXECUTE FUNCTION app.watch()",
)


def seen_of(patient: Patient, code: str) -> str:
    """What one check saw; it must be `ok`."""
    (check,) = patient.checks(code)
    assert check.severity == "ok"
    return check.seen


def test_event_triggers_are_named(patient: Patient) -> None:
    assert seen_of(patient, "TAB10").startswith("None.")
    patient.sql(*TRIGGER)
    try:
        assert seen_of(patient, "TAB10") == patient.filled("Event triggers: watch_{database}.")
    finally:
        patient.sql("DROP EVENT TRIGGER watch_{database}", "DROP FUNCTION app.watch()")


def test_columns_that_an_update_may_leave_out_are_named_unless_old_rows_come_whole(patient: Patient) -> None:
    assert "app.customer.name" in seen_of(patient, "TAB03")
    patient.sql("ALTER TABLE app.customer REPLICA IDENTITY FULL")
    assert seen_of(patient, "TAB03").startswith("No mapped columns")


def test_the_initial_snapshots_rows_are_estimated(patient: Patient) -> None:
    patient.sql("INSERT INTO app.customer SELECT 'N' || n, 'x' FROM generate_series(1, 700) n", "ANALYZE app.customer")
    rows = int(seen_of(patient, "TAB09").split()[1])
    assert 700 <= rows <= 710


def test_what_the_stream_lets_the_role_read_is_counted(patient: Patient) -> None:
    assert "of 1 published tables" in seen_of(patient, "ROL07")


def test_settings_that_do_not_matter_to_us_are_shown_as_they_are(patient: Patient) -> None:
    assert seen_of(patient, "CAP12").startswith("track_commit_timestamp is off")
    assert "the sidecar confirms at once" in seen_of(patient, "CAP10")


def test_the_platform_is_reported(patient: Patient) -> None:
    facts = patient.facts()
    for platform, word in (("", "Self-managed"), ("rds", "Amazon"), ("cloudsql", "Cloud SQL"), ("azure", "Azure")):
        there = facts.also({ServerFacts: (facts.one(ServerFacts)._replace(platform=platform),)})
        (check,) = [check for check in run_checks(there) if check.code == "SRV09"]
        assert word in check.seen


def test_what_a_slot_repeats_is_said(patient: Patient) -> None:
    assert seen_of(patient, "POS04") == "No position to compare."
    patient.sql("SELECT pg_create_logical_replication_slot('" + patient.slot + "', 'pgoutput')", "CHECKPOINT")
    patient.sql("INSERT INTO app.customer VALUES ('C9', 'later')")
    patient.wanted["position"] = patient.position()
    assert seen_of(patient, "POS04").startswith("The slot resends from")
    patient.wanted["position"] = patient.position(lsn=1)
    assert seen_of(patient, "POS04") == "Nothing is resent."


def test_a_replication_login_that_is_refused_names_the_line_that_lets_it_in(patient: Patient) -> None:
    assert seen_of(patient, "ROL04") == "A replication connection to this database is accepted."
    facts = patient.facts()
    refused = facts.one(ReplicationLogin)._replace(server=None, refusal="no entry for this host")
    (check,) = [check for check in run_checks(facts.also({ReplicationLogin: (refused,)})) if check.code == "ROL04"]
    assert check.severity == "fail"
    assert patient.filled("hostssl {database} {role}") in check.fix.sql[0]
