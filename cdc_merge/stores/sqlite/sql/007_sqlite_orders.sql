-- What a source was told to do beside following its stream (pause, read tables again), and the tables that an
-- unfinished copy has finished. Both outlive a crash.
CREATE TABLE source_order (
    name TEXT PRIMARY KEY,
    body TEXT NOT NULL         -- JSON
) WITHOUT ROWID;

ALTER TABLE source ADD COLUMN copied TEXT NOT NULL DEFAULT '[]';
