-- What records may not share with others: the digest of each unique rule's normalised values, and who holds it.

CREATE TABLE unique_digest (
    entity TEXT NOT NULL,
    digest BLOB NOT NULL,
    key    TEXT NOT NULL,
    PRIMARY KEY (entity, digest, key)
) WITHOUT ROWID;
CREATE INDEX unique_digest_of_record ON unique_digest (entity, key);

-- How far the records of an entity are in it, and for which rules: `reached` is the last key, NULL when all are.
CREATE TABLE unique_index (
    entity  TEXT PRIMARY KEY,
    rules   TEXT NOT NULL,
    reached TEXT
) WITHOUT ROWID;
