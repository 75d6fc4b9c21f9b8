-- Every replication slot with its holder. Columns that only some versions have are read through to_jsonb; without
-- pg_read_all_stats the details of other roles' sessions are NULL.
SELECT s.slot_name::text AS name, quote_literal(s.slot_name) AS sql, s.slot_type = 'physical' AS is_physical,
       s.plugin::text AS plugin, coalesce(s.database = current_database(), false) AS is_here, s.temporary, s.active,
       CASE WHEN a.pid IS NULL THEN NULL
            ELSE coalesce(nullif(a.application_name, ''), 'process ' || s.active_pid)
                 || coalesce(' of ' || a.usename, '') || coalesce(' from ' || host(a.client_addr), '')
                 || coalesce(', connected since ' || date_trunc('second', a.backend_start), '') END AS holder,
       s.active AND a.backend_start IS NULL AS holder_is_hidden, s.active_pid,
       s.wal_status, s.safe_wal_size AS safe_bytes,
       pg_wal_lsn_diff(w.lsn, s.restart_lsn)::int8 AS retained_bytes,
       pg_wal_lsn_diff(w.lsn, s.confirmed_flush_lsn)::int8 AS unconfirmed_bytes,
       s.confirmed_flush_lsn::text AS confirmed_lsn, s.restart_lsn::text AS restart_lsn,
       greatest(age(s.catalog_xmin), age(s.xmin)) AS xid_age,
       to_jsonb(s) ->> 'invalidation_reason' AS invalidation_reason,
       (to_jsonb(s) ->> 'conflicting')::bool AS conflicting,
       extract(epoch FROM clock_timestamp() - (to_jsonb(s) ->> 'inactive_since')::timestamptz)::float8 AS inactive_s,
       (to_jsonb(s) ->> 'failover')::bool AS failover, (to_jsonb(s) ->> 'synced')::bool AS synced
FROM pg_replication_slots s
CROSS JOIN (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS lsn) w
LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
ORDER BY s.slot_name
