-- Free slots, senders and connections, and the rate of WAL. $1 is the sidecar's slot.
-- The rate is an average since the statistics were reset, NULL just after that; two examinations take the difference of `wal_lsn`.
SELECT (current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots))::int AS free_slots,
       (current_setting('max_wal_senders')::int - (SELECT count(*) FROM pg_stat_get_wal_senders()))::int AS free_senders,
       (current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true), '0')::int
        - (SELECT coalesce(sum(d.numbackends), 0) FROM pg_stat_database d))::int AS free_connections,
       (SELECT count(*) FROM pg_stat_activity a WHERE a.usename = current_user)::int AS role_connections,
       (SELECT d.datconnlimit FROM pg_database d WHERE d.datname = current_database()) AS database_limit,
       (SELECT (w.wal_bytes / extract(epoch FROM clock_timestamp() - w.stats_reset))::float8
        FROM pg_stat_wal w WHERE w.stats_reset < clock_timestamp() - interval '10 min') AS wal_bytes_per_s,
       (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - '0/0')::int8 AS wal_lsn,
       (SELECT s.spill_bytes FROM pg_stat_replication_slots s WHERE s.slot_name = $1) AS spill_bytes,
       (SELECT s.total_bytes FROM pg_stat_replication_slots s WHERE s.slot_name = $1) AS decoded_bytes
