-- Changes whose record nobody knows yet, in the order in which they came; `columns` is JSON, `body` as in the history.
CREATE TABLE parked (
    id           INTEGER PRIMARY KEY,
    source       TEXT NOT NULL,
    label        TEXT NOT NULL,
    columns      TEXT NOT NULL,
    identity     TEXT NOT NULL,
    was          TEXT NOT NULL,
    entity       TEXT NOT NULL,
    system       TEXT NOT NULL,
    timeline     INTEGER NOT NULL,
    lsn          INTEGER NOT NULL,
    table_name   TEXT NOT NULL,
    ordinal      INTEGER NOT NULL,
    wall_us      INTEGER NOT NULL,
    stamp_source TEXT NOT NULL,
    body         BLOB NOT NULL
);
CREATE INDEX parked_of_row ON parked (source, label, identity);
CREATE INDEX parked_in_table ON parked (source, table_name);
CREATE INDEX parked_since ON parked (wall_us);
