-- The first layout of the SQLite store.
--
-- The history is one log in order of arrival. Each entry points at the record's entry before it, and `head` at the
-- newest: a batch spread over random records then dirties the log's end and the narrow `head` instead of one page per
-- record. `previous` and `head` can always be made again from (record_id, seq).

CREATE TABLE schema_version (version INTEGER NOT NULL);
INSERT INTO schema_version (version) VALUES (0);

CREATE TABLE record (
    entity TEXT NOT NULL,
    key    TEXT NOT NULL,
    id     INTEGER NOT NULL,
    PRIMARY KEY (entity, key)
) WITHOUT ROWID;

CREATE TABLE history (
    seq       INTEGER PRIMARY KEY,
    record_id INTEGER NOT NULL,
    previous  INTEGER NOT NULL,   -- 0: none
    scope_id  INTEGER NOT NULL,
    lsn       INTEGER NOT NULL,   -- as a signed number of 64 bit
    ordinal   INTEGER NOT NULL,
    source    TEXT NOT NULL,
    body      BLOB NOT NULL
);

CREATE TABLE head (
    record_id INTEGER PRIMARY KEY,
    seq       INTEGER NOT NULL
);

-- What the places of one table have in common, and the highest place of it that was ever stored: a place beyond that
-- cannot be in the log yet.
CREATE TABLE scope (
    id         INTEGER PRIMARY KEY,
    system     TEXT NOT NULL,
    timeline   INTEGER NOT NULL,
    table_name TEXT NOT NULL,
    lsn        INTEGER NOT NULL,
    ordinal    INTEGER NOT NULL,
    UNIQUE (system, timeline, table_name)
);

-- `seq` is the order of the queue; the other columns are what a list can be filtered by, the body is the conflict.
CREATE TABLE conflict (
    seq        INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    status     TEXT NOT NULL,
    entity     TEXT NOT NULL,
    key        TEXT NOT NULL,
    field      TEXT,
    field_group TEXT,
    kind       TEXT NOT NULL,
    severity   TEXT NOT NULL,
    sources    TEXT NOT NULL,     -- JSON array
    raised_us  INTEGER NOT NULL,
    body       BLOB NOT NULL
);
CREATE INDEX conflict_record ON conflict (entity, key);
CREATE INDEX conflict_status ON conflict (status);
CREATE INDEX conflict_unfinished ON conflict (entity, key) WHERE status <> 'closed';
CREATE INDEX conflict_open ON conflict (entity, kind, severity, raised_us) WHERE status = 'open';

CREATE TABLE source (
    name          TEXT PRIMARY KEY,
    system        TEXT NOT NULL,
    timeline      INTEGER NOT NULL,
    lsn           INTEGER NOT NULL,
    snapshot      TEXT NOT NULL,
    slot          TEXT NOT NULL,
    clock_wall_us INTEGER NOT NULL,
    clock_counter INTEGER NOT NULL,
    clock_source  TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE identity (
    source     TEXT NOT NULL,
    table_name TEXT NOT NULL,
    identity   TEXT NOT NULL,
    key        TEXT NOT NULL,
    PRIMARY KEY (source, table_name, identity)
) WITHOUT ROWID;

-- One row: counting millions of entries on every scrape would be too dear.
CREATE TABLE figure (history_changes INTEGER NOT NULL);
INSERT INTO figure (history_changes) VALUES (0);
