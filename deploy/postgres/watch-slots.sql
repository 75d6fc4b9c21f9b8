-- What every replication slot costs, and how long it may still be away. Changes nothing; run it by hand or from a job.
SELECT s.slot_name, s.active, s.wal_status,
       pg_size_pretty(pg_wal_lsn_diff(w.lsn, s.restart_lsn)) AS retained,
       pg_size_pretty(pg_wal_lsn_diff(w.lsn, s.confirmed_flush_lsn)) AS unconfirmed,
       CASE WHEN s.safe_wal_size IS NULL THEN 'no limit' ELSE pg_size_pretty(s.safe_wal_size) END AS safe,
       date_trunc('second', make_interval(secs => s.safe_wal_size / nullif(r.bytes_per_s, 0))) AS until_lost,
       age(s.catalog_xmin) AS catalog_xmin_age, to_jsonb(s) ->> 'invalidation_reason' AS invalidated
FROM pg_replication_slots s
CROSS JOIN (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS lsn) w
CROSS JOIN (SELECT (wal_bytes / extract(epoch FROM clock_timestamp() - stats_reset))::float8 AS bytes_per_s FROM pg_stat_wal) r
ORDER BY pg_wal_lsn_diff(w.lsn, s.restart_lsn) DESC NULLS LAST;
