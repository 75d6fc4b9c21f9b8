-- Bases: records folded up to a stamp, so that only what follows must be read again.
--
-- `id` is record id × 16 + slot, which keeps a record's few bases side by side. `seq` is the newest entry of the record's
-- trail when the base was made: every entry behind it is in the base, every later one is not.

CREATE TABLE base (
    id      INTEGER PRIMARY KEY,
    seq     INTEGER NOT NULL,
    wall_us INTEGER NOT NULL,
    counter INTEGER NOT NULL,
    source  TEXT NOT NULL,
    body    BLOB NOT NULL
);
