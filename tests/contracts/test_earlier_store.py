"""A store that commit ea8a72c wrote opens and answers as it did then, and a worker goes on with it, whatever has been renamed since.

What is durable is positional: bases by slot, conflicts and changes by item, orders by field name, policies as digests of the
plan. None of that is seen by a compiler, so what the read side said then is kept beside the store, and compared whole.
tests/recordings/store-ea8a72c/README.md describes the two stores. They are never generated again.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import lzma
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from cdc_merge.app.sidecar import ingest_of, open_queries, open_store
from cdc_merge.cel import compile_expression
from cdc_merge.config.load import load
from cdc_merge.config.settings import PostgresSourceSettings, Settings, SqliteStoreSettings
from cdc_merge.errors import HistoryRemoved, NotFound
from cdc_merge.mapping.mapper import Mapper
from cdc_merge.merge.fold import fold
from cdc_merge.merge.replay import FOLD_VERSION, fold_from_checkpoint, policy_of
from cdc_merge.merge.units import Units
from cdc_merge.merge.views import merged
from cdc_merge.model import (
    UNCHANGED,
    Column,
    Delivery,
    Idle,
    Json,
    Message,
    Position,
    RecordKey,
    Relation,
    RowChange,
    SourceStatus,
    Transaction,
)
from cdc_merge.model.ports import PRUNED_SLOT, Source, Store
from cdc_merge.queries.documents import Fields, json_text
from cdc_merge.queries.port import QueryPort
from cdc_merge.queries.responses import (
    AsOf,
    conflict_document,
    conflicts_document,
    explain_document,
    history_document,
    missing_document,
    record_document,
    records_document,
    restore_document,
    rules_document,
    sources_document,
)
from cdc_merge.sources.spill import SpillFile
from cdc_merge.worker.ingest import SourceIngest
from cdc_merge.worker.pipeline import Pipeline
from cdc_merge.worker.state import Environment

STORES: Final = Path(__file__).parent.parent / "recordings" / "store-ea8a72c"
NAMES: Final = ("generated", "demo")
NOBODY: Final = "host=127.0.0.1 port=9 dbname=none"
ENVIRONMENT: Final = {
    "CRM_DSN": NOBODY,
    "ERP_DSN": NOBODY,
    "FINANCE_DSN": NOBODY,
    "CDC_MERGE_LISTEN": "127.0.0.1:0",
}
STATUSES: Final = ("settling", "open", "closed")
ALL: Final = 100_000
PAGE: Final = 40
EXPLAINED: Final = 6  # records of each entity of which every field is explained
PAST: Final = 3  # earlier moments of each record
MAP_KEYS: Final = ("prefs.c", "prefs.n", "prefs.z")
# Errors, whose words are no part of what is durable.
REMOVED: Final = "the history was removed by retention"
# Sentences for people, which may change: of an explained write, and of a source without a running sidecar.
SENTENCES: Final = frozenset({"because", "problem"})
NEVER: Final = "there never was such a thing"
# Of whom `generated` was written: its bases are dropped when their records are folded again, but for roots.
EARLIER_FOLD: Final = 2

# Records of `generated` that the merge answers otherwise since faults of it were mended (docs/semantics.md), and which rule says so.
LOCAL: Final = "§4, local deletes: a deleted row holds nothing, and one that returns agrees; moves are key_change"
BOUND: Final = "§3 immutable: the bound value is a candidate although its writer was seen"
BASE: Final = "§3 counter and append: the base is what was held at the first part; equal rewrites of a log are one"
HELD: Final = "§4: until a source writes, the value is that of what the holders hold at present"
LIFE: Final = "§4: a new incarnation has seen what the deletes of absent sources had seen; divergences stay open"
WINS: Final = "§4, delete_wins: a new incarnation has seen the inserts that the delete dominates"
MENDED: Final[Mapping[str, Mapping[str, str]]] = {
    "account": {"N5": WINS, "N8": WINS},
    "contact": dict.fromkeys(
        (
            *("A4,new", "N1,new", "N2,gold", "N2,new", "N3,gold", "N3,new", "N4,gold", "N4,new", "N5,gold"),
            *("N6,gold", "N6,new", "N7,gold", "N7,new", "N8,gold", "N8,new"),
        ),
        LOCAL,
    ),
    "customer": {
        **dict.fromkeys(("A4", "A5", "A7", "A8", "K4", "K7", "K9", "Z2"), BOUND),
        **dict.fromkeys(("A3", "K1", "K3", "K5"), BASE),
        **dict.fromkeys(("K2", "N2"), HELD),
        **dict.fromkeys(("G1", "N1"), LIFE),
    },
}

JsonObject = dict[str, Any]


# ---------------------------------------------------------------- the stores


class Earlier(NamedTuple):
    """A copy of an earlier store, and what was said of it. `now_us`: our clock then."""

    settings: Settings
    now_us: int
    answers: JsonObject
    later: Sequence[JsonObject]
    after: JsonObject


def settings_at(folder: Path, store: Path) -> Settings:
    return load(folder / "cdc-merge.yaml", {**ENVIRONMENT, "CDC_MERGE_STORE": f"sqlite://{store}"})


@pytest.fixture(params=NAMES)
def earlier(request: pytest.FixtureRequest, tmp_path: Path) -> Earlier:
    folder, store = STORES / request.param, tmp_path / "state.db"
    store.write_bytes(lzma.decompress((folder / "state.db.xz").read_bytes()))
    expected = json.loads(lzma.decompress((folder / "answers.json.xz").read_bytes()))
    return Earlier(
        settings_at(folder, store), expected["now_us"], expected["answers"], expected["later"], expected["after"]
    )


# ---------------------------------------------------------------- everything that a store says


def plain(value: Any) -> Any:
    """Values by position, without the names of their classes and attributes."""
    if dataclasses.is_dataclass(value):
        value = [getattr(value, each.name) for each in dataclasses.fields(value)]
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    if isinstance(value, Mapping | frozenset | set):
        items = value.items() if isinstance(value, Mapping) else value
        return sorted((plain(each) for each in items), key=repr)
    form = next((form for kind, form in _FORMS.items() if isinstance(value, kind)), None)
    return value if form is None else form(value)


_FORMS: Final[Mapping[type, Any]] = {
    Enum: lambda value: {"enum": value.value},
    Json: lambda value: {"json": str(value)},
    bytes: lambda value: {"bytes": value.hex()},
    Decimal: lambda value: {"number": str(value)},
    float: lambda value: {"float": repr(value)},
}


def document(fields: Fields) -> Any:
    return json.loads(json_text(fields), parse_float=str)


def answers_of(settings: Settings, now_us: int) -> JsonObject:
    """All that is said of the store of these settings: by documents, and by what is durable."""
    reading = open_queries(settings)
    with closing(open_store(settings)) as store:
        records = {name: store.records(name, None, ALL) for name in settings.plan.entities}
        keys = [RecordKey(entity, key) for entity, names in records.items() for key in names]
        answers = {
            "records": records,
            "record": _each(keys, lambda key: record_document(reading, key, None)),
            "history": _each(keys, lambda key: [*_history(reading, key)]),
            "past": {str([*key]): _past(reading, store, key) for key in keys},
            "explain": {str([*key]): _explained(reading, settings, key) for key in _some(records)},
            "restore": {str([*key]): _restored(reading, key) for key in _some(records)},
            "conflicts": {status: _conflicts(reading, status) for status in STATUSES},
            "missing": {name: document(missing_document(reading, name, None, None, ALL)) for name in records},
            "sources": document(sources_document(reading, now_us)),
            "rules": document(rules_document(reading)),
            "pages": {name: document(records_document(reading, name, None, 2))["next_cursor"] for name in records},
            "durable": _durable(store, keys),
        }
    return answers


def _each(keys: Sequence[RecordKey], ask: Any) -> JsonObject:
    return {str([*key]): document(ask(key)) for key in keys}


def _history(reading: QueryPort, key: RecordKey) -> Iterator[Fields]:
    """Every page."""
    cursor: str | None = None
    while True:
        try:
            page = history_document(reading, key, cursor, PAGE)
        except NotFound:  # all of its log is gone, and it has a root
            return
        yield page
        following = page["next_cursor"]
        if following is None:
            return
        cursor = str(following)


def _past(reading: QueryPort, store: Store, key: RecordKey) -> Sequence[object]:
    history = store.history(key)
    actual: list[object] = []
    for change in history[:: max(1, len(history) // PAST)]:
        try:
            actual.append(document(record_document(reading, key, AsOf(change.stamp, str(change.stamp)))))
        except HistoryRemoved:
            actual.append(REMOVED)
    return actual


def _some(records: Mapping[str, Sequence[str]]) -> list[RecordKey]:
    return [RecordKey(name, key) for name, keys in records.items() for key in keys[:: max(1, len(keys) // EXPLAINED)]]


def _explained(reading: QueryPort, settings: Settings, key: RecordKey) -> JsonObject:
    """A map is explained key by key."""
    entity = settings.plan.entities[key.entity]
    names = [name for name, field in {**entity.fields, **entity.groups}.items() if field.merge != "map"]
    actual: JsonObject = {}
    for name in sorted([*names, *(MAP_KEYS if "prefs" in entity.fields else ())]):
        try:
            actual[name] = document(explain_document(reading, key, name))
        except NotFound:  # a key that was never held
            actual[name] = NEVER
    return actual


def _restored(reading: QueryPort, key: RecordKey) -> object:
    """The plan to restore the last conflict-free state."""
    try:
        return document(restore_document(reading, key, None, ()))
    except HistoryRemoved:
        return REMOVED
    except NotFound:
        return NEVER


def _conflicts(reading: QueryPort, status: str) -> Sequence[object]:
    actual: list[object] = []
    cursor: str | None = None
    while True:
        page = document(conflicts_document(reading, {"status": status}, cursor, PAGE))
        actual += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    alone = [document(conflict_document(reading, each["id"])) for each in actual]  # type: ignore[index]  # a document
    assert alone == actual
    return actual


def _durable(store: Store, keys: Sequence[RecordKey]) -> JsonObject:
    """By position: what is remembered and has no document, or says more than its document."""
    conflicts = [conflict for status in STATUSES for conflict in store.conflicts({"status": status}, None, ALL)]
    return {
        "changes": {str([*key]): plain(store.history(key)) for key in keys},
        "bases": {str([*key]): plain(base._replace(tree=())) for key in keys if (base := store.folded(key)[0])},
        "conflicts": plain(conflicts),
        "unfinished": plain([*store.unfinished_conflicts()]),
        "positions": plain(store.positions()),
        "orders": plain(store.orders()),
        "parked": plain(store.parked()),
        "awaited": plain(store.awaited_identities()),
        "due": plain(store.deadlines()),
        "judged": plain(store.evaluated()),
        "lost": plain(store.lost()),
        "missing": plain([store.missing((name, None), None, ALL) for name in sorted({key.entity for key in keys})]),
    }


def by_the_writer(store: Store, expected: JsonObject) -> JsonObject:
    """The reads of a transaction: digests, business keys, quarantined changes. `expected`: the earlier answers, or the
    queries to run."""
    answers: JsonObject = {"records": expected["records"], "identities": [], "waiting": []}
    keys = [RecordKey(*each) for each in expected["records"]]
    with store.transaction() as tx:
        answers["digests"] = plain(tx.digests_of(keys))
        answers["lacking"] = plain(tx.missing_of(keys))
        answers["open"] = plain(tx.open_conflicts(keys))
        for source, table, names in expected["identities"]:
            actual = tx.keys_of(source, table, [name for name, _ in names])
            answers["identities"].append([source, table, [[name, actual.get(name)] for name, _ in names]])
        for source, label, identities, _ in expected["waiting"]:
            answers["waiting"].append(
                [source, label, identities, plain(tx.release_quarantined(source, label, identities))]
            )
    return answers


def differences(actual: Any, expected: Any, at: str = "") -> Iterator[str]:
    """Where two answers are not the same; an assertion over all of a store would take minutes to tell it."""
    if isinstance(actual, dict) and isinstance(expected, dict):
        for name in sorted((actual.keys() | expected.keys()) - SENTENCES):
            yield from differences(actual.get(name, "(absent)"), expected.get(name, "(absent)"), f"{at}.{name}")
    elif isinstance(actual, list) and isinstance(expected, list) and len(actual) == len(expected):
        for number, (one, other) in enumerate(zip(actual, expected, strict=True)):
            yield from differences(one, other, f"{at}[{number}]")
    elif actual != expected or actual.__class__ is not expected.__class__:
        yield f"{at}: {str(actual)[:300]}, and it was {str(expected)[:300]}"


def same(actual: Any, expected: Any) -> None:
    apart = [*itertools.islice(differences(json.loads(json.dumps(actual)), expected), 10)]
    assert not apart, "\n".join(apart)


def same_but_mended(actual: Any, expected: Any) -> None:
    """All that is said of the other records; of the mended ones that their conflicts have kept their ids."""
    actual = json.loads(json.dumps(actual))
    assert _recorded_ids(actual) == _recorded_ids(expected)
    # A record that is folded again loses its bases, and may get one of the present fold.
    bases = {key for key, base in actual["durable"]["bases"].items() if base[2].startswith(f"{EARLIER_FOLD}/")}
    same(_without_mended(actual, bases), _without_mended(expected, bases))


def _recorded_ids(answers: JsonObject) -> list[list[Any]]:
    """The conflicts that the earlier store has, by id; those that a worker announces later are numbered in its order."""
    each = [conflict for status in STATUSES for conflict in answers["conflicts"][status]]
    return sorted([c["id"], c["entity"], c["key"], c["field"], c["group"]] for c in each if c["id"].startswith("q"))


def _without_mended(answers: JsonObject, bases: set[str]) -> JsonObject:
    mended = {str([entity, key]) for entity, keys in MENDED.items() for key in keys}
    by_record = {
        name: {key: each for key, each in answers[name].items() if key not in mended}
        for name in ("record", "past", "explain", "restore")
    }
    conflicts = {
        status: [c for c in of_status if str([c["entity"], c["key"]]) not in mended]
        for status, of_status in answers["conflicts"].items()
    }
    durable = answers["durable"]
    kept = {name: [c for c in durable[name] if str(c[1][:2]) not in mended] for name in ("conflicts", "unfinished")} | {
        "bases": {key: base for key, base in durable["bases"].items() if key in bases}
    }
    return _unnumbered({**answers, **by_record, "conflicts": conflicts, "durable": {**durable, **kept}})  # type: ignore[no-any-return]


def _unnumbered(answer: Any) -> Any:
    """Without the numbers of later conflicts: there are more or fewer of them. Conflicts are listed by number."""
    if isinstance(answer, Mapping):
        return {name: _unnumbered(each) for name, each in answer.items()}
    if isinstance(answer, list):
        several = [_unnumbered(each) for each in answer]
        is_numbered = several != answer or any("later" in str(each)[:20] for each in answer)
        return sorted(several, key=repr) if is_numbered else several
    return "later" if isinstance(answer, str) and re.fullmatch(r"later\d+", answer) else answer


# ---------------------------------------------------------------- a worker


class Line:
    """ports.Source: what it is given arrives."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.waiting: list[Delivery] = []

    def start(self, position: Position | None) -> None: ...
    def confirm(self, lsn: int) -> None: ...
    def stop(self) -> None: ...

    def take(self, limit: int) -> Sequence[Delivery]:
        taken, self.waiting = self.waiting, []
        return taken

    def status(self) -> SourceStatus:
        return SourceStatus(self.name, "postgres", up=True)


class Worker:
    """A worker that has just started over the store, at the hour `now_us`."""

    def __init__(self, settings: Settings, store: Store, now_us: int) -> None:
        self.now_us = now_us
        self.store = store
        self.lines = {name: Line(name) for name in settings.sources}
        ids = itertools.count(1)
        world = Environment(lambda: self.now_us, lambda: f"later{next(ids)}", compile_expression)
        pairs: list[tuple[Source, SourceIngest]] = [
            (line, self._intake(settings, name)) for name, line in self.lines.items()
        ]
        self.pipeline = Pipeline(settings.plan, pairs, store, lambda fact: None, world)
        self.pipeline.resume()

    def _intake(self, settings: Settings, name: str) -> SourceIngest:
        """As commands have it; a source that is never copied is answers whole rows."""
        source = settings.sources[name]
        if isinstance(source, PostgresSourceSettings) and source.snapshot != "never":
            return ingest_of(settings, name, self.store)
        tables = [table for table in settings.plan.tables if table.source == name]
        mapper = Mapper(name, tables, settings.plan, whole_rows=True)
        return SourceIngest(name, mapper, source.slot if isinstance(source, PostgresSourceSettings) else "", SpillFile)

    def take(self, *deliveries: Delivery) -> None:
        for delivery in deliveries:
            self.lines[delivery.source].waiting.append(delivery)
        while self.pipeline.step():
            pass

    def rest(self) -> None:
        """Every source says once more how far it is: a batch, and nothing new in it."""
        at = self.store.positions()
        self.take(*(Idle(name, p.system, p.timeline, p.lsn, p.passed_us) for name, (p, _) in at.items()))


def delivery_of(recorded: JsonObject) -> Delivery:
    """A delivery as it is written beside the store: `rows` None is an idle mark; a cell `false` was not sent."""
    source, (system, timeline, lsn), at_us = recorded["source"], recorded["place"], recorded["at_us"]
    if recorded["rows"] is None:
        return Idle(source, system, timeline, lsn, at_us)
    messages = tuple(Message(prefix, content.encode(), transactional=True) for prefix, content in recorded["messages"])
    columns = tuple(Column(name, oid, "", is_identity) for name, oid, is_identity in recorded["columns"])
    relation = Relation(recorded["relation"], "public", recorded["table"], recorded["identity"], columns)
    changes = tuple(
        RowChange(
            operation, relation, _cells(old), old is not None and recorded["identity"] == "f", _cells(new), ordinal
        )
        for operation, old, new, ordinal in recorded["rows"]
    )
    return Transaction(source, system, timeline, lsn, at_us, recorded["origin"], messages, changes)


def _cells(recorded: Sequence[str | bool | None] | None) -> tuple[Any, ...] | None:
    if recorded is None:
        return None
    return tuple(UNCHANGED if cell is False else cell.encode() if isinstance(cell, str) else None for cell in recorded)


def lived(settings: Settings, later: Sequence[JsonObject], now_us: int) -> JsonObject:
    """What is said when a worker has gone on by what came later."""
    with closing(open_store(settings)) as store:
        store.claim("the test")
        worker = Worker(settings, store, now_us)
        for recorded in later:
            worker.now_us = recorded["now_us"]
            worker.take(delivery_of(recorded))
    return answers_of(settings, worker.now_us)


# ---------------------------------------------------------------- the tests


def test_every_answer_is_as_it_was(earlier: Earlier) -> None:
    same_but_mended(answers_of(earlier.settings, earlier.now_us), earlier.answers["read"])


def test_a_transaction_returns_what_it_returned_before(earlier: Earlier) -> None:
    with closing(open_store(earlier.settings)) as store:
        store.claim("the test")
        same(by_the_writer(store, earlier.answers["written"]), earlier.answers["written"])


def test_a_worker_that_starts_judges_nothing_anew_and_changes_no_answer(earlier: Earlier) -> None:
    with closing(open_store(earlier.settings)) as store:
        store.claim("the test")
        worker = Worker(earlier.settings, store, earlier.now_us)
        assert not worker.pipeline.state.reevaluation.is_due, (
            "the policy that the records were judged by is still in force"
        )
        before = store.positions()
        worker.rest()
        assert store.positions() == before
    same_but_mended(answers_of(earlier.settings, earlier.now_us), earlier.answers["read"])


def test_bases_are_those_of_the_earlier_policy_and_say_what_the_log_says(earlier: Earlier) -> None:
    with closing(open_store(earlier.settings)) as store:
        bases = _same_as_their_logs(earlier.settings, store)
    assert len(bases) == len(earlier.answers["read"]["durable"]["bases"])


def test_a_worker_goes_on_as_the_earlier_one_did(earlier: Earlier) -> None:
    same_but_mended(lived(earlier.settings, earlier.later, earlier.now_us), earlier.after)
    with closing(open_store(earlier.settings)) as store:
        _same_as_their_logs(earlier.settings, store)


def test_the_stores_hold_what_they_are_kept_for() -> None:
    """A rich store: were it not, the rest would prove little."""
    expected = json.loads(lzma.decompress((STORES / "generated" / "answers.json.xz").read_bytes()))
    read, written = expected["answers"]["read"], expected["answers"]["written"]
    durable = read["durable"]
    assert all(read["conflicts"][status] for status in STATUSES)
    assert all(durable[what] for what in ("orders", "parked", "awaited", "due", "judged", "lost"))
    assert any(durable["missing"])
    assert all(written[what] for what in ("digests", "identities", "waiting", "lacking"))
    roots = [is_root for *_, is_root in durable["bases"].values()]
    assert any(roots)
    assert not all(roots)
    kinds = {conflict["kind"] for status in STATUSES for conflict in read["conflicts"][status]}
    assert {"concurrent_update", "concurrent_insert", "update_delete", "bound", "invariant", "duplicate"} <= kinds
    assert {"divergence", "business_rule", "unauthorized"} <= kinds
    resolutions = {conflict["resolution"] for conflict in read["conflicts"]["closed"]}
    assert {"auto", "converged"} <= resolutions


def test_the_ladder_of_bases_is_there(earlier: Earlier) -> None:
    """Bases of other slots than the first, and a root."""
    store = earlier.settings.store
    assert isinstance(store, SqliteStoreSettings)
    with closing(sqlite3.connect(store.path)) as file:
        slots = {number for (number,) in file.execute("SELECT DISTINCT id % 16 FROM base")}
    assert not earlier.answers["read"]["durable"]["bases"] or {0, 1, 2, PRUNED_SLOT} <= slots


def _same_as_their_logs(settings: Settings, store: Store) -> list[RecordKey]:
    """Each record from its base, and from its whole history; those that have a base."""
    plan, actual = settings.plan, []
    for name, entity in plan.entities.items():
        units = Units(entity)
        for key in map(RecordKey, itertools.repeat(name), store.records(name, None, ALL)):
            base, _ = stored = store.folded(key)
            if base is not None and base.policy != policy_of(plan):
                actual.append(key)
                assert base.policy == policy_of(plan).replace(f"{FOLD_VERSION}/", f"{EARLIER_FOLD}/", 1), key
                continue  # a writer folds the record again, from its root if it has one
            root, changes = whole = store.folded(key, whole=True)
            by_base = merged(fold_from_checkpoint(units, key.key, stored, max_ahead_us=plan.max_ahead_us))
            by_log = fold(units, changes, max_ahead_us=plan.max_ahead_us) if root is None else None
            assert by_base == merged(
                by_log or fold_from_checkpoint(units, key.key, whole, max_ahead_us=plan.max_ahead_us)
            ), key
            if base is not None:
                actual.append(key)
    return actual
