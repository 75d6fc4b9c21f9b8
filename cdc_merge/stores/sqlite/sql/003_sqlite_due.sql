-- When stamp time alone will raise a question about a record (divergence), and how far each source had passed it.
CREATE TABLE due (
    entity TEXT NOT NULL,
    key    TEXT NOT NULL,
    due_us INTEGER NOT NULL,
    PRIMARY KEY (entity, key)
) WITHOUT ROWID;
ALTER TABLE source ADD COLUMN passed_us INTEGER NOT NULL DEFAULT 0;
