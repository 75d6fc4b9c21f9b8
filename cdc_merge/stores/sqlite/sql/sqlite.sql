-- Every statement of the SQLite store. `-- name:` begins one; the comment under it gives the reason.

-- name: tables
-- An empty file, a store, or the database of another program?
SELECT name FROM sqlite_master WHERE type = 'table'

-- name: schema_version
-- The file's last migration.
SELECT version FROM schema_version

-- name: set_schema_version
-- In the same transaction as the migration itself.
UPDATE schema_version SET version = ?

-- name: last_numbers
-- The one writer assigns numbers; both maxima are the ends of a B-tree.
SELECT (SELECT coalesce(max(seq), 0) FROM history), (SELECT coalesce(max(record_id), 0) FROM head)

-- name: scopes
-- There are few (tables × timelines), so they are read at once.
SELECT id, system, timeline, table_name, lsn, ordinal FROM scope

-- name: add_scope
-- A table seen for the first time; nothing of it is stored yet.
INSERT INTO scope (system, timeline, table_name, lsn, ordinal) VALUES (?, ?, ?, -1, -1)

-- name: raise_scope
-- Once per batch and table, not once per change.
UPDATE scope SET lsn = ?, ordinal = ? WHERE id = ?

-- name: record
-- A point query stays inside the process (about 2 µs), so keys are queried one by one and any text is safe.
SELECT record.id, head.seq FROM record CROSS JOIN head ON head.record_id = record.id
WHERE record.entity = ? AND record.key = ?

-- name: add_record
-- The writer knows that the record is new.
INSERT INTO record (entity, key, id) VALUES (?, ?, ?)

-- name: add_change
-- The writer has made sure that the place is new.
INSERT INTO history (seq, record_id, previous, scope_id, lsn, ordinal, source, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?)

-- name: set_head
-- REPLACE on a table without further indexes is one B-tree visit.
REPLACE INTO head (record_id, seq) VALUES (?, ?)

-- name: trail
-- From the heads back to the first entry of each record. A missing `previous` ends the trail.
WITH RECURSIVE trail (previous, record_id, scope_id, lsn, ordinal, source, body) AS (
    SELECT entry.previous, entry.record_id, entry.scope_id, entry.lsn, entry.ordinal, entry.source, entry.body
    FROM json_each(?) AS wanted CROSS JOIN history AS entry ON entry.seq = wanted.value
    UNION ALL
    SELECT entry.previous, entry.record_id, entry.scope_id, entry.lsn, entry.ordinal, entry.source, entry.body
    FROM trail CROSS JOIN history AS entry ON entry.seq = trail.previous
)
SELECT trail.record_id, scope.system, scope.timeline, scope.table_name, trail.lsn, trail.ordinal, trail.source, trail.body
FROM trail CROSS JOIN scope ON scope.id = trail.scope_id

-- name: trail_stamps
-- As `trail`, of one record: of each entry only where it stands and the beginning of its body, which holds its stamp.
WITH RECURSIVE trail (seq, previous, scope_id, lsn, ordinal, source, beginning) AS (
    SELECT seq, previous, scope_id, lsn, ordinal, source, substr(body, 1, 32) FROM history WHERE seq = ?
    UNION ALL
    SELECT entry.seq, entry.previous, entry.scope_id, entry.lsn, entry.ordinal, entry.source, substr(entry.body, 1, 32)
    FROM trail CROSS JOIN history AS entry ON entry.seq = trail.previous
)
SELECT trail.seq, scope.system, scope.timeline, trail.lsn, scope.table_name, trail.ordinal, trail.source, trail.beginning
FROM trail CROSS JOIN scope ON scope.id = trail.scope_id

-- name: entries
-- One page of the above.
SELECT entry.record_id, scope.system, scope.timeline, scope.table_name, entry.lsn, entry.ordinal, entry.source, entry.body
FROM json_each(?) AS wanted CROSS JOIN history AS entry ON entry.seq = wanted.value
CROSS JOIN scope ON scope.id = entry.scope_id

-- name: tail
-- As `trail`, from each head down to the entry that its checkpoint reaches to.
WITH RECURSIVE trail (previous, floor, record_id, scope_id, lsn, ordinal, source, body) AS (
    SELECT entry.previous, json_extract(wanted.value, '$[1]'), entry.record_id, entry.scope_id, entry.lsn, entry.ordinal,
           entry.source, entry.body
    FROM json_each(?) AS wanted CROSS JOIN history AS entry ON entry.seq = json_extract(wanted.value, '$[0]')
    WHERE entry.seq > json_extract(wanted.value, '$[1]')
    UNION ALL
    SELECT entry.previous, trail.floor, entry.record_id, entry.scope_id, entry.lsn, entry.ordinal, entry.source, entry.body
    FROM trail CROSS JOIN history AS entry ON entry.seq = trail.previous
    WHERE trail.previous > trail.floor
)
SELECT trail.record_id, scope.system, scope.timeline, scope.table_name, trail.lsn, trail.ordinal, trail.source, trail.body
FROM trail CROSS JOIN scope ON scope.id = trail.scope_id

-- name: newest_base
-- At most sixteen rows; the body of one of them is read.
SELECT id, seq, wall_us, counter, source, body FROM base WHERE id BETWEEN :first AND :last
ORDER BY wall_us DESC, counter DESC, source DESC LIMIT 1

-- name: newest_base_before
-- The checkpoint to refold from when a change arrives late.
SELECT id, seq, wall_us, counter, source, body FROM base WHERE id BETWEEN :first AND :last
  AND (wall_us, counter, source) < (:wall_us, :counter, :source)
ORDER BY wall_us DESC, counter DESC, source DESC LIMIT 1

-- name: base_at
-- One slot of one record.
SELECT id, seq, wall_us, counter, source, body FROM base WHERE id = ?

-- name: base_reaches
-- The newest trail entry in a checkpoint.
SELECT seq FROM base WHERE id BETWEEN :first AND :last
  AND (wall_us, counter, source) = (:wall_us, :counter, :source)
ORDER BY seq DESC LIMIT 1

-- name: save_base
-- Replaces the slot's earlier checkpoint.
REPLACE INTO base (id, seq, wall_us, counter, source, body) VALUES (?, ?, ?, ?, ?, ?)

-- name: raise_base
-- The checkpoint moves to the next slot, in place of the one there.
UPDATE OR REPLACE base SET id = id + 1 WHERE id = ?

-- name: forget_bases
-- They lack a late change.
DELETE FROM base WHERE id BETWEEN :first AND :last AND (wall_us, counter, source) >= (:wall_us, :counter, :source)

-- name: forget_earlier_bases
-- The pruned checkpoint includes all of them.
DELETE FROM base WHERE id BETWEEN :first AND :last AND (wall_us, counter, source) <= (:wall_us, :counter, :source)

-- name: forget_bases_of
-- Part of the record's log was removed.
DELETE FROM base WHERE id BETWEEN ? AND ?

-- name: forget_orphans
-- Checkpoints of removed records.
DELETE FROM base WHERE id / 16 NOT IN (SELECT record_id FROM head)

-- name: oldest
-- The log is in order of arrival. Its last entry always stays: entries are numbered from there.
SELECT record.entity, record.key, entry.source, entry.body
FROM history AS entry CROSS JOIN record ON record.id = entry.record_id
WHERE entry.seq < (SELECT max(seq) FROM history) ORDER BY entry.seq LIMIT ?

-- name: forget_oldest
-- A trail that loses its older end needs no relinking: it ends where an entry is missing.
DELETE FROM history WHERE seq IN (SELECT seq FROM history ORDER BY seq LIMIT ?)

-- name: mend_heads
-- Records whose log is removed; the numbers of their entries may be reused.
UPDATE head SET seq = 0 WHERE seq NOT IN (SELECT seq FROM history)

-- name: forget_record
-- A record without log and checkpoints.
DELETE FROM record WHERE entity = ? AND key = ?

-- name: forget_head
-- With the record.
DELETE FROM head WHERE record_id = ?

-- name: save_lost
-- Once per entity.
INSERT OR IGNORE INTO lost (entity) VALUES (?)

-- name: lost
-- Read when a worker starts.
SELECT entity FROM lost

-- name: find_place
-- Only for places that are not beyond the highest of their scope: re-delivery, and sources without one order.
WITH RECURSIVE trail (seq, previous, scope_id, lsn, ordinal) AS (
    SELECT seq, previous, scope_id, lsn, ordinal FROM history WHERE seq = :head
    UNION ALL
    SELECT entry.seq, entry.previous, entry.scope_id, entry.lsn, entry.ordinal
    FROM trail CROSS JOIN history AS entry ON entry.seq = trail.previous
)
SELECT history.seq, history.source, history.body
FROM trail CROSS JOIN history ON history.seq = trail.seq
WHERE trail.scope_id = :scope AND trail.lsn = :lsn AND trail.ordinal = :ordinal

-- name: replace_change
-- The smaller of two stamps for one place stays.
UPDATE history SET source = ?, body = ? WHERE seq = ?

-- name: count_changes
-- The running count that `figures` reads.
UPDATE figure SET history_changes = history_changes + ?

-- name: records_of_source
-- The records of a removed source; its clocks are its name, or its name and a partition.
SELECT entity, key FROM record
WHERE id IN (SELECT record_id FROM history
             WHERE source = :source OR substr(source, 1, length(:source) + 1) = :source || '/')
ORDER BY entity, key

-- name: forget_changes
-- Rare (an initial snapshot that did not finish), so it may walk the whole log.
DELETE FROM history WHERE source = :source OR substr(source, 1, length(:source) + 1) = :source || '/'

-- name: relink
-- Entries were removed from the middle of trails.
UPDATE history SET previous = linked.previous
FROM (SELECT seq, lag(seq, 1, 0) OVER (PARTITION BY record_id ORDER BY seq) AS previous FROM history) AS linked
WHERE linked.seq = history.seq AND linked.previous <> history.previous

-- name: forget_heads
-- All heads are computed again from the remaining log, except of records with a pruned checkpoint.
DELETE FROM head WHERE record_id NOT IN (SELECT id / 16 FROM base WHERE id % 16 = 15)

-- name: make_heads
-- The newest entry of each record.
REPLACE INTO head (record_id, seq) SELECT record_id, max(seq) FROM history GROUP BY record_id

-- name: forget_records
-- A record exists as long as it has a head.
DELETE FROM record WHERE id NOT IN (SELECT record_id FROM head)

-- name: forget_scopes
-- The next initial snapshot may have lower places.
DELETE FROM scope WHERE id NOT IN (SELECT scope_id FROM history)

-- name: forget_identities
-- Filled again by the next initial snapshot.
DELETE FROM identity WHERE source = ?

-- name: records
-- The primary key's own order; keys are unique within an entity, so the last one is the cursor.
SELECT key FROM record WHERE entity = :entity AND (:after IS NULL OR key > :after) ORDER BY key LIMIT :limit

-- name: save_conflict
-- Replacing keeps the place in the queue.
INSERT INTO conflict (id, status, entity, key, field, field_group, kind, severity, sources, raised_us, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
    status = excluded.status, entity = excluded.entity, key = excluded.key, field = excluded.field,
    field_group = excluded.field_group, kind = excluded.kind, severity = excluded.severity,
    sources = excluded.sources, raised_us = excluded.raised_us, body = excluded.body

-- name: forget_members
-- The records of a conflict may change while it is open.
DELETE FROM conflict_member WHERE conflict = ?

-- name: save_member
-- Only of conflicts about several records.
INSERT INTO conflict_member (entity, key, conflict) VALUES (?, ?, ?)

-- name: conflict
-- One conflict, by its public name.
SELECT body FROM conflict WHERE id = ?

-- name: conflict_seq
-- A cursor is a conflict's id; its place in the queue never changes.
SELECT seq FROM conflict WHERE id = ?

-- name: unfinished_of_record
-- The partial index holds open and settling conflicts only.
SELECT body FROM conflict WHERE entity = ? AND key = ? AND status <> 'closed' ORDER BY seq

-- name: unfinished
-- Read from the partial index alone; the bodies follow in pages.
SELECT seq FROM conflict INDEXED BY conflict_unfinished WHERE status <> 'closed' ORDER BY seq

-- name: conflicts_at
-- One page of the above; a conflict that was closed in between is left out.
SELECT conflict.body FROM json_each(?) AS wanted CROSS JOIN conflict ON conflict.seq = wanted.value
WHERE conflict.status <> 'closed' ORDER BY conflict.seq

-- name: conflicts_of_record
-- Three access paths, one set of filters: a record's conflicts are few.
SELECT body FROM conflict
WHERE (entity = :entity AND key = :key
       OR id IN (SELECT conflict FROM conflict_member WHERE entity = :entity AND key = :key))
  AND seq > :after
  AND (:status IS NULL OR status = :status)
  AND (:field IS NULL OR field = :field OR field_group = :field)
  AND (:kind IS NULL OR kind = :kind) AND (:severity IS NULL OR severity = :severity)
  AND (:source IS NULL OR EXISTS (SELECT 1 FROM json_each(sources) AS each WHERE each.value = :source))
ORDER BY seq LIMIT :limit

-- name: conflicts_by_status
-- Open conflicts are a small part of all, and already in the order of the queue.
SELECT body FROM conflict
WHERE status = :status AND seq > :after
  AND (:entity IS NULL OR entity = :entity) AND (:key IS NULL OR key = :key
       OR id IN (SELECT conflict FROM conflict_member AS member WHERE member.entity = conflict.entity AND member.key = :key))
  AND (:field IS NULL OR field = :field OR field_group = :field)
  AND (:kind IS NULL OR kind = :kind) AND (:severity IS NULL OR severity = :severity)
  AND (:source IS NULL OR EXISTS (SELECT 1 FROM json_each(sources) AS each WHERE each.value = :source))
ORDER BY seq LIMIT :limit

-- name: conflicts_in_order
-- No index helps: walk the queue.
SELECT body FROM conflict
WHERE seq > :after
  AND (:status IS NULL OR status = :status)
  AND (:entity IS NULL OR entity = :entity) AND (:key IS NULL OR key = :key
       OR id IN (SELECT conflict FROM conflict_member AS member WHERE member.entity = conflict.entity AND member.key = :key))
  AND (:field IS NULL OR field = :field OR field_group = :field)
  AND (:kind IS NULL OR kind = :kind) AND (:severity IS NULL OR severity = :severity)
  AND (:source IS NULL OR EXISTS (SELECT 1 FROM json_each(sources) AS each WHERE each.value = :source))
ORDER BY seq LIMIT :limit

-- name: save_position
-- Together with the clock: a restart never stamps backwards.
REPLACE INTO source
  (name, system, timeline, lsn, snapshot, slot, passed_us, copied, membership, clock_wall_us, clock_counter, clock_source)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: positions
-- All sources at once; there are few.
SELECT name, system, timeline, lsn, snapshot, slot, passed_us, copied, membership,
       clock_wall_us, clock_counter, clock_source
FROM source

-- name: save_orders
-- Rarely, and a few hundred bytes: always whole.
REPLACE INTO source_order (name, body) VALUES (?, ?)

-- name: orders
-- All sources at once; there are few.
SELECT name, body FROM source_order

-- name: key_of
-- Queried one by one, like `record`.
SELECT key FROM identity WHERE source = ? AND table_name = ? AND identity = ?

-- name: save_identity
-- A row may take another business key.
REPLACE INTO identity (source, table_name, identity, key) VALUES (?, ?, ?, ?)

-- name: forget_identity
-- The row was deleted.
DELETE FROM identity WHERE source = ? AND table_name = ? AND identity = ?

-- name: park
-- A change whose business key is unknown.
INSERT INTO parked (source, label, columns, identity, was, entity, system, timeline, lsn, table_name, ordinal, wall_us, stamp_source, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: rename_parked
-- The row has another identity from now on.
UPDATE parked SET identity = ? WHERE source = ? AND label = ? AND identity = ?

-- name: parked_of
-- Queried one by one, like `record`.
SELECT label, columns, identity, was, entity, system, timeline, lsn, table_name, ordinal, stamp_source, body
FROM parked WHERE source = ? AND label = ? AND identity = ? ORDER BY id

-- name: unpark
-- Their business key is resolved.
DELETE FROM parked WHERE source = ? AND label = ? AND identity = ?

-- name: forget_parked
-- Their table was truncated.
DELETE FROM parked WHERE source = ? AND entity = ? AND table_name = ?

-- name: forget_parked_of
-- The source gets a new initial snapshot.
DELETE FROM parked WHERE source = ?

-- name: parked_before
-- Counts what the next statement removes.
SELECT source, table_name, count(*) FROM parked WHERE wall_us < ? GROUP BY source, table_name

-- name: forget_parked_before
-- Quarantined for the whole retention.
DELETE FROM parked WHERE wall_us < ?

-- name: awaited
-- Few distinct values, however many rows.
SELECT DISTINCT source, label, columns FROM parked

-- name: parked_counts
-- An index-only query, at each scrape.
SELECT source, table_name, count(*) FROM parked GROUP BY source, table_name

-- name: save_due
-- One time a record: the next.
REPLACE INTO due (entity, key, due_us) VALUES (?, ?, ?)

-- name: forget_due
-- Only a change of the record can affect its conflicts.
DELETE FROM due WHERE entity = ? AND key = ?

-- name: due
-- All of them: a worker that starts keeps them in memory.
SELECT entity, key, due_us FROM due

-- name: digests_of
-- An index-only query.
SELECT digest FROM unique_digest WHERE entity = ? AND key = ?

-- name: keys_with
-- One step down the primary key; nearly always one row.
SELECT key FROM unique_digest WHERE entity = ? AND digest = ? ORDER BY key LIMIT ?

-- name: save_digest
-- Only what changed is written.
INSERT OR IGNORE INTO unique_digest (entity, digest, key) VALUES (?, ?, ?)

-- name: forget_digest
-- The record has another value, or none.
DELETE FROM unique_digest WHERE entity = ? AND digest = ? AND key = ?

-- name: save_judged
-- Once a page.
REPLACE INTO judged (entity, policy, reached) VALUES (?, ?, ?)

-- name: judged
-- Read when a worker starts.
SELECT entity, policy, reached FROM judged

-- name: missing_of
-- Queried one by one, like `record`.
SELECT source, since_us FROM missing WHERE entity = ? AND key = ?

-- name: save_missing
-- A source at which a record is missing.
REPLACE INTO missing (entity, key, source, since_us) VALUES (?, ?, ?, ?)

-- name: forget_missing
-- Replaced by the next statement.
DELETE FROM missing WHERE entity = ? AND key = ?

-- name: forget_missing_of
-- The entity no longer reports missing records.
DELETE FROM missing WHERE entity = ?

-- name: missing
-- A page of records; all sources of one stay together.
SELECT entity, key, source, since_us FROM missing
WHERE entity = :entity AND (:source IS NULL OR source = :source) AND key IN (
    SELECT DISTINCT key FROM missing
    WHERE entity = :entity AND (:source IS NULL OR source = :source) AND (:after IS NULL OR key > :after)
    ORDER BY key LIMIT :limit)
ORDER BY key, source

-- name: missing_counts
-- At each scrape.
SELECT entity, source, count(*) FROM missing GROUP BY entity, source

-- name: history_changes
-- The running count.
SELECT history_changes FROM figure

-- name: open_conflicts
-- An index-only query on the partial index over open conflicts.
SELECT entity, kind, severity, count(*), min(raised_us) FROM conflict INDEXED BY conflict_open WHERE status = 'open'
GROUP BY entity, kind, severity
