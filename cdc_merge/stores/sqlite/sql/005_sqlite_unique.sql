-- What records may not share with others: the digest of each unique rule's normalised values, and who holds it.

CREATE TABLE unique_digest (
    entity TEXT NOT NULL,
    digest BLOB NOT NULL,
    key    TEXT NOT NULL,
    PRIMARY KEY (entity, digest, key)
) WITHOUT ROWID;
CREATE INDEX unique_digest_of_record ON unique_digest (entity, key);

-- The records of a conflict that is about several, so that it is found under each of them.
CREATE TABLE conflict_member (
    entity   TEXT NOT NULL,
    key      TEXT NOT NULL,
    conflict TEXT NOT NULL,
    PRIMARY KEY (entity, key, conflict)
) WITHOUT ROWID;
CREATE INDEX conflict_members ON conflict_member (conflict);
