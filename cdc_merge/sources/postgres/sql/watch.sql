-- The server's clock, then how far its WAL reached: every commit stamped before the clock reading lies before that LSN.
-- How far it is on disk, and so may be sent; NULL on a standby, which sends what it has replayed.
-- The publication's oid beside them: from version 18 on a missing publication is silent in the stream.
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint::text,
       (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END)::text,
       (CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_flush_lsn() END)::text,
       (SELECT p.oid::text FROM pg_publication p WHERE p.pubname = $1)
