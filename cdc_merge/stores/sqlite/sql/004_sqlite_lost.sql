-- The entities of which ended records were removed: an update of a row that nobody knows can no longer be told from
-- one after a delete.

CREATE TABLE lost (entity TEXT PRIMARY KEY) WITHOUT ROWID;

-- Retention meets a record by the number that its log entries carry.
CREATE UNIQUE INDEX record_number ON record (id);
