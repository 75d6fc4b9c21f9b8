"""What of the configuration may change while the sidecar runs: each setting is either taken or named with its line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cdc_merge.config import Settings, load
from cdc_merge.config.reloadable import copy_value_types, refuse_restarts
from cdc_merge.errors import ConfigError
from tests.support.configuration import ENVIRONMENT, FILE


def settings(directory: Path, text: str) -> Settings:
    file = directory / "cdc-merge.yaml"
    file.write_text(text)
    return load(file, ENVIRONMENT)


def changed(directory: Path, before: str, after: str) -> tuple[Settings, Settings]:
    assert before in FILE, before
    return settings(directory, FILE), settings(directory, FILE.replace(before, after))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("settle: 2s", "settle: 5s"),
        ("keep_folded: 10m, retention: 90d", "keep_folded: 5m, retention: 30d"),
        ("severity: high", "severity: low"),
        ("sources: [crm]", "sources: [crm, erp]"),
        ("merge: mv, severity: low", "merge: mv, severity: high"),
        ("fields: [city, zip] }", "fields: [city, zip], severity: critical }"),
        ("points <= 100", "points <= 200"),
        ("tolerance: 10m", "tolerance: 1h"),
        ("  - { name: drift", "  - { name: latest, on: customer.name, decide: { auto: latest } }\n  - { name: drift"),
        ("level: info", "level: debug"),
    ],
)
def test_what_says_how_records_are_judged_may_change(tmp_path: Path, before: str, after: str) -> None:
    old, new = changed(tmp_path, before, after)
    assert replace(old, lines={}) != replace(new, lines={})
    refuse_restarts(old, new)


@pytest.mark.parametrize(
    ("before", "after", "place"),
    [
        ("state.db", "other.db", "2: store"),
        ("8787", "8788", "3: http.listen"),
        ("max_ahead: 5s", "max_ahead: 6s", "5: clock.max_ahead"),
        ("dsn: host=y", "dsn: host=z", "9: sources.erp.dsn"),
        ("dsn: host=y", "dsn: host=y, slot: mine", "9: sources.erp.slot"),
        ("actors: [etl]", "actors: [job]", "8: sources.crm.copies"),
        ("column: by", "column: who", "8: sources.crm.actor"),
        ("phone: tel", "phone: mobile", "14: entities.customer.from.erp"),
        ("merge: mv, normalize", "merge: lww, normalize", "16: entities.customer.fields.phone.merge"),
        ("[trim]", "[trim, digits]", "16: entities.customer.fields.phone.normalize"),
        ("min: 0", "min: 1", "17: entities.customer.fields.points.min"),
        ("color: { merge: mv,", "color: { merge: lww,", "18: entities.customer.fields.prefs.keys"),
        ("[city, zip] }", "[zip, city] }", "20: entities.customer.groups.address.fields"),
        ("deletes: review", "deletes: delete_wins", "22: entities.customer.deletes"),
        (":4318", ":4319", "26: telemetry"),
    ],
)
def test_what_records_are_made_of_is_refused_with_its_place(
    tmp_path: Path, before: str, after: str, place: str
) -> None:
    old, new = changed(tmp_path, before, after)
    with pytest.raises(ConfigError) as refused:
        refuse_restarts(old, new)
    (line,) = refused.value.problems
    assert line.startswith(f"{new.file}:{place}: this cannot change while the sidecar runs (restart")
    assert "host=" not in line


def test_a_source_and_an_entity_that_come_or_go_are_refused(tmp_path: Path) -> None:
    more = FILE.replace(
        "entities:\n",
        "  oa: { type: postgres, dsn: host=o }\nentities:\n"
        "  note: { from: { crm: { table: n, key: k, fields: { t: t } }, oa: { table: n, key: k, fields: { t: t } } } }\n",
    )
    old, new = settings(tmp_path, FILE), settings(tmp_path, more)
    for before, after in ((old, new), (new, old)):
        with pytest.raises(ConfigError) as refused:
            refuse_restarts(before, after)
        problems = " ".join(refused.value.problems)
        assert "sources.oa: " in problems
        assert "entities.note: " in problems


def test_every_problem_of_a_reload_is_reported_at_once(tmp_path: Path) -> None:
    old, new = settings(tmp_path, FILE), settings(tmp_path, FILE.replace("8787", "1").replace("min: 0", "min: 1"))
    with pytest.raises(ConfigError) as refused:
        refuse_restarts(old, new)
    assert len(refused.value.problems) == 2


def test_the_value_types_of_the_catalogs_are_kept(tmp_path: Path) -> None:
    old, new = changed(tmp_path, "severity: high", "severity: low")
    customer = old.plan.entities["customer"]
    fields = {name: replace(field, value_type="text") for name, field in customer.fields.items()}
    known = replace(old.plan, entities={"customer": replace(customer, fields=fields)})
    typed = copy_value_types(new.plan, known).entities["customer"].fields["phone"]
    assert (typed.value_type, typed.severity) == ("text", "low")
