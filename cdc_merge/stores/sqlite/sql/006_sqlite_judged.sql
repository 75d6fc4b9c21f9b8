-- By which policy the records of an entity were last judged: `reached` is the last key, NULL when all are.
CREATE TABLE judged (
    entity  TEXT PRIMARY KEY,
    policy  TEXT NOT NULL,
    reached TEXT
) WITHOUT ROWID;

-- Records that a source does not have (`on_missing: report`), and since when (stamp time).
CREATE TABLE missing (
    entity   TEXT NOT NULL,
    key      TEXT NOT NULL,
    source   TEXT NOT NULL,
    since_us INTEGER NOT NULL,
    PRIMARY KEY (entity, key, source)
) WITHOUT ROWID;
CREATE INDEX missing_in_source ON missing (entity, source, key);
