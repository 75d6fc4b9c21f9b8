"""Whatever is wrong with a configuration is said, all of it at once, with file, line, path and the next step."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cdc_merge.config import load
from cdc_merge.config.problems import did_you_mean, path_text
from cdc_merge.errors import ConfigError

SECRET = "geheim-9431"
ENVIRONMENT = {"CRM_DSN": f"host=x password={SECRET}", "ERP_DSN": "host=y", "HOME": "/home/x"}
SOURCES = """
sources:
  crm: { type: postgres, dsn: ${CRM_DSN} }
  erp: { type: postgres, dsn: ${ERP_DSN} }
"""
ENTITIES = """
entities:
  customer:
    from:
      crm: { table: customer, key: no, fields: { name: name, phone: tel, points: points, city: city, street: street } }
      erp: { table: erp.partner, key: code, fields: { name: name, phone: tel, points: bonus, tax: tax } }
"""


def problems(tmp_path: Path, text: str) -> list[str]:
    """The problems of a file, without the file's own name."""
    file = tmp_path / "cdc-merge.yaml"
    file.write_text(text, encoding="utf-8")
    try:
        load(file, ENVIRONMENT)
    except ConfigError as error:
        return [problem.removeprefix(f"{file}:") for problem in error.problems]
    return []


def with_entity(tmp_path: Path, extra: str) -> list[str]:
    """The problems of a good file whose entity has these lines more."""
    return problems(tmp_path, SOURCES + ENTITIES + "\n".join(f"    {line}" for line in extra.splitlines()))


def test_a_good_file_has_no_problem(tmp_path: Path) -> None:
    assert problems(tmp_path, SOURCES + ENTITIES) == []


def test_a_problem_names_file_line_path_and_suggestion(tmp_path: Path) -> None:
    file = tmp_path / "cdc-merge.yaml"
    file.write_text(SOURCES + ENTITIES + "    fields:\n      points: { merge: couter }\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(file, ENVIRONMENT)
    assert caught.value.problems == (
        f"{file}:12: entities.customer.fields.points.merge: there is no merge type 'couter' (did you mean counter?)",
    )


def test_all_problems_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        """
setle: 2s
settle: 2 seconds
clock: { max_ahead: 5 }
sources:
  crm: { type: postgres, dsn: ${NOBODY}, snapshot: initail }
  erp: { type: postgress, dsn: ${ERP_DSN} }
entities:
  customer:
    from:
      crm: { tabel: customer, key: no, fields: { name: name } }
      epr: { table: partner, key: no, fields: { name: name } }
    fields:
      name: { merge: lww, min: 3, normalize: [trimm] }
rules:
  - { name: one, on: customer.nmae }
""",
    )
    expected = [
        "2: setle: there is no key 'setle'",
        "3: settle: a duration is",
        "4: clock.max_ahead: a duration is",
        "6: sources.crm.dsn: ${NOBODY} has no value",
        "6: sources.crm.snapshot: 'initail' is not allowed here (did you mean initial?)",
        "7: sources.erp.type: there is no source type 'postgress' (did you mean postgres?)",
        "11: entities.customer.from.crm.table: this key is missing",
        "11: entities.customer.from.crm.tabel: there is no key 'tabel' here (did you mean table?)",
        "12: entities.customer.from.epr: there is no source 'epr' (did you mean erp?)",
        "14: entities.customer.fields.name.min: min does not belong to merge: lww (it belongs to counter)",
        "14: entities.customer.fields.name.normalize[0]: there is no normalisation 'trimm' (did you mean trim?)",
        "16: rules[0].on: this selects nothing: there is no field 'nmae' (did you mean name?)",
    ]
    assert [problem[: len(start)] for problem, start in zip(found, expected, strict=True)] == expected


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("store: state.db", "store: a store is sqlite:///ABSOLUTE/PATH"),
        ("store: sqlite://state.db", "store: a store is sqlite:///ABSOLUTE/PATH"),
        ("store: 'postgresql://u:p@h/d'", "store: a store in PostgreSQL is not part of this version"),
        ("http: { listen: 8787 }", "http.listen: an address is host:port"),
        ("http: { listen: '127.0.0.1:99999' }", "http.listen: an address is host:port"),
        ("http: true", "http: this must be a mapping"),
        ("settle: 2", "settle: a duration is a whole number and a unit"),
        ("settle: -2s", "settle: a duration is a whole number and a unit"),
        ("settle: 40000d", "settle: a duration of more than a hundred years"),
        ("history: { retention: forever }", "history.retention: a duration is"),
        ("rules: { name: one }", "rules: this must be a list"),
        ("notify: [ { chanel: x } ]", "notify[0].type: this key is missing"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, line: str, problem: str) -> None:
    found = problems(tmp_path, SOURCES + ENTITIES + line + "\n")
    assert len(found) == 1
    assert problem in found[0]


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{ type: postgres }", "sources.crm.dsn: this key is missing (dsn: ${NAME}, or dsn_file"),
        ("{ type: postgres, dsn: ${ERP_DSN}, dsn_file: x }", "sources.crm.dsn_file: dsn and dsn_file are both given"),
        ("{ type: postgres, dsn_file: nowhere }", "cannot be read: No such file or directory"),
        ("{ type: postgres, dsn: 5 }", "sources.crm.dsn: this must be text"),
        ("{ dsn: ${ERP_DSN} }", "sources.crm.type: this key is missing (one of: postgres"),
        ("{ type: postgres, dsn: ${CRM_DSN}, slot: Big-Slot }", "sources.crm.slot: this must be a name of at most 63"),
        ("{ type: postgres, dsn: ${CRM_DSN}, pubication: x }", "'pubication' here (did you mean publication?)"),
        ("{ type: postgres, dsn: ${ERP_DSN}, slot: cdc_merge_erp }", "belongs to the source crm"),
        ("{ type: http }", "sources.crm.type: sources of type http are not part of this version"),
        (
            "{ type: debezium, bootstrap_servers: [a], topics: [] }",
            "sources.crm.topics: this needs at least 1 entry",
        ),
    ],
)  # fmt: skip
def test_a_wrong_source_is_named(tmp_path: Path, source: str, problem: str) -> None:
    found = problems(tmp_path, SOURCES.replace("{ type: postgres, dsn: ${CRM_DSN} }", source) + ENTITIES)
    assert len(found) == 1
    assert problem in found[0]


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ("fields:\n  phone: { mrege: mv }", "there is no key 'mrege' here (did you mean merge?)"),
        ("fields:\n  phoen: { merge: mv }", "no source maps the field 'phoen' (did you mean phone?)"),
        ("fields:\n  phone: { severity: hihg }", "'hihg' is not allowed here (did you mean high?)"),
        ("fields:\n  phone: { agreement: sometimes }", "agreement is true, false or past"),
        ("fields:\n  phone: { separator: ';' }", "separator does not belong to merge: mv (it belongs to set)"),
        ("fields:\n  points: { merge: counter, min: 3, max: 2 }", "min is greater than max"),
        ("fields:\n  points: { merge: counter, min: few }", "this must be a number"),
        ("fields:\n  points: { merge: counter, min: .nan }", "this must be a finite number"),
        ("fields:\n  points: { merge: counter, agreement: true }", "equal values prove nothing for merge: counter"),
        ("fields:\n  phone: { merge: priority }", "phone.order: merge: priority needs this key"),
        ("fields:\n  phone: { merge: priority, order: [crm, epr] }", "no source 'epr' (did you mean erp?)"),
        ("fields:\n  phone: { merge: priority, order: { crm: [erp] } }", "merge: priority ranks sources"),
        ("fields:\n  phone: { merge: set, wins: true }", "wins is add or remove for merge: set"),
        ("fields:\n  phone: { merge: set, wins: both }", "wins is add or remove for a set"),
        ("fields:\n  phone: { merge: lattice, order: 5 }", "order is a list of words"),
        ("fields:\n  phone: { merge: map, keys: { a: { merge: coutner } } }", "phone.keys.a.merge: there is no merge"),
        ("fields:\n  phone: { merge: map, keys: { a: { mrege: mv } } }", "'mrege' here (did you mean merge?)"),
        ("fields:\n  phone: { writers: { sources: [cmr] } }", "does not come from a source 'cmr' (did you mean crm?)"),
        ("groups:\n  address: { fields: [city, tax] }", "crm maps some fields of the group and not tax"),
        (
            "groups:\n  address: { fields: [city, streets] }",
            "no source maps the field 'streets' (did you mean street?)",
        ),
        ("groups:\n  address: { fields: [city] }", "groups.address.fields: this needs at least 2 entries"),
        ("groups:\n  city: { fields: [name, phone] }", "'city' is a field already"),
        ("groups:\n  address: { fields: [city, street], merge: counter }", "counter does not merge a group"),
        (
            "groups:\n  address: { fields: [city, street] }\n  place: { fields: [street, city] }",
            "'street' belongs to the group address already",
        ),
        ("unique: [ { fields: [taxno] } ]", "unique[0].fields: no source maps the field 'taxno'"),
        ("unique: [ { fields: tax, normalize: [trin] } ]", "unique[0].normalize[0]: there is no normalisation 'trin'"),
        ("checks: [ { name: a, expr: x }, { name: a, expr: y } ]", "the name 'a' is taken by checks[0]"),
        (
            "checks: [ { name: a, expr: 'record.nam == 1' } ]",
            "checks[0].expr: line 1, column 7: record has no field 'nam' (Its fields: name",
        ),
        ('checks: [ { name: a, expr: "record.name ==" } ]', "line 1, column 15: this is not CEL"),
        ("unique: [ { fields: tax, when: record.tax + 1 } ]", "unique[0].when: line 1, column 12: this gives a number"),
        (
            "unique: [ { fields: tax, when: record.taks } ]",
            "unique[0].when: line 1, column 7: record has no field 'taks'",
        ),
        ("deletes: never", "'never' is not allowed here (one of: review, delete_wins, update_wins, local)"),
    ],
)
def test_a_wrong_entity_is_named(tmp_path: Path, extra: str, problem: str) -> None:
    found = with_entity(tmp_path, extra)
    assert any(problem in line for line in found), found
    assert len({line.split(":")[0] for line in found}) <= 2


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ("{ name: a, on: contract.amount }", "there is no entity 'contract' (one of: customer)"),
        ("{ name: a, on: '*.remark' }", "there is no field 'remark'"),
        ("{ name: a, on: customer.phone, tolerance: 10 }", "a duration is"),
        ("{ name: a, on: customer, decide: { auto: newest } }", "auto is one of latest, earliest"),
        ("{ name: a, on: customer, decide: { auto: [ { prefer: [cmr] } ] } }", "no source 'cmr' (did you mean crm?)"),
        ("{ name: a, on: customer }, { name: a, on: customer }", "the name 'a' is taken by rules[0]"),
        ("{ name: a, on: customer.*, when: new > olt }", "rules[0].when: line 1, column 7: there is no 'olt' here"),
        ("{ name: a, on: customer.phone, when: new + 1 }", "rules[0].when: line 1, column 5: this gives a number"),
        ("{ name: a, on: customer, when: 'true' }", "rules[0].on: a rule with `when` is about fields (customer.* or"),
    ],
)  # fmt: skip
def test_a_wrong_rule_is_named(tmp_path: Path, rule: str, problem: str) -> None:
    found = problems(tmp_path, SOURCES + ENTITIES + f"rules: [ {rule} ]\n")
    assert len(found) == 1
    assert problem in found[0]


@pytest.mark.parametrize("on", ["customer.phone", "customer.*", "*.phone", "customer", "customer.address", "*.*"])
def test_a_rule_may_select_an_entity_a_field_a_group_or_all(tmp_path: Path, on: str) -> None:
    groups = "    groups: { address: { fields: [city, street] } }\n"
    assert problems(tmp_path, SOURCES + ENTITIES + groups + f"rules: [ {{ name: a, on: '{on}' }} ]\n") == []


def test_a_rule_may_select_a_key_of_a_map(tmp_path: Path) -> None:
    assert problems(tmp_path, SOURCES + ENTITIES + "rules: [ { name: a, on: customer.phone.home } ]\n") == []


ACTOR = "actor: { column: updated_by%s }"


@pytest.mark.parametrize("promise", ["", ", always_written: false"])
def test_copies_by_an_actor_column_need_the_promise_that_it_is_always_written(tmp_path: Path, promise: str) -> None:
    sources = SOURCES.replace("${CRM_DSN} }", "${CRM_DSN}, copies: { actors: [etl] }, " + ACTOR % promise + " }")
    (found,) = problems(tmp_path, sources + ENTITIES)
    assert found.startswith("3: sources.crm.copies.actors: the actor is the column updated_by")


def test_writers_by_an_actor_column_need_the_promise_too(tmp_path: Path) -> None:
    sources = SOURCES.replace("${CRM_DSN} }", "${CRM_DSN}, " + ACTOR % "" + " }")
    writers = "    fields: { phone: { writers: { actors: [manager] } } }\n"
    (found,) = problems(tmp_path, sources + ENTITIES + writers)
    assert "set sources.crm.actor.always_written: true" in found


def test_actors_that_messages_name_need_no_promise(tmp_path: Path) -> None:
    sources = SOURCES.replace("${CRM_DSN} }", "${CRM_DSN}, copies: { actors: [etl] } }")
    promised = SOURCES.replace(
        "${CRM_DSN} }", "${CRM_DSN}, copies: { actors: [etl] }, " + ACTOR % ", always_written: true" + " }"
    )
    assert problems(tmp_path, sources + ENTITIES) == []
    assert problems(tmp_path, promised + ENTITIES) == []


def test_one_table_of_a_source_is_one_entity(tmp_path: Path) -> None:
    again = "  partner:\n    from:\n      crm: { table: public.customer, key: no, fields: { name: name } }\n"
    (found,) = problems(tmp_path, SOURCES + ENTITIES + again)
    assert "this table of crm is mapped by the entity customer already" in found


def test_keys_have_the_same_number_of_columns_everywhere(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, SOURCES + ENTITIES.replace("key: code", "key: [code, region]"))
    assert "the sources' keys have different numbers of columns" in found


@pytest.mark.parametrize("name", ["cdc_merge", "9to5", "a b", "a/b", "a@b"])
def test_a_source_cannot_have_a_name_that_stamps_and_labels_cannot_carry(tmp_path: Path, name: str) -> None:
    text = SOURCES.replace("  erp:", f"  '{name}':") + ENTITIES.replace("      erp:", f"      '{name}':")
    (found,) = problems(tmp_path, text)
    assert re.match(r"\d+: sources\.", found)


def test_no_problem_repeats_the_value_of_a_variable(tmp_path: Path) -> None:
    file = tmp_path / "cdc-merge.yaml"
    broken = SOURCES.replace("${CRM_DSN} }", "${CRM_DSN}, dsn_file: x, slot: ${CRM_DSN} }") + "store: ${CRM_DSN}\n"
    file.write_text(broken + ENTITIES + "http: { listen: ${CRM_DSN} }\nsettle: ${CRM_DSN}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(file, ENVIRONMENT)
    assert len(caught.value.problems) == 5
    assert SECRET not in repr(caught.value) + str(caught.value) + " ".join(caught.value.problems)
    assert caught.value.exit_code == 78


def test_a_missing_file_and_a_directory_are_one_sentence_each(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.yaml", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            load(path, {})


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load(tmp_path / "x.yaml", {})


def test_the_path_of_a_problem_reads_as_people_write_it() -> None:
    assert path_text(("rules", 0, "decide", "auto")) == "rules[0].decide.auto"


def test_a_word_that_resembles_nothing_gets_the_whole_list_if_it_is_short() -> None:
    assert did_you_mean("zzz", ["a", "b"]) == "one of: a, b"
    assert did_you_mean("zzz", [str(number) for number in range(100)]) == ""
