-- Transactions that a new slot must wait for, oldest first. Others' are hidden without pg_read_all_stats.
SELECT 'process ' || a.pid || coalesce(' of ' || a.usename, '') AS who,
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS age_s, false AS prepared,
       format('SELECT pg_terminate_backend(%s);', a.pid) AS end_sql
FROM pg_stat_activity a
WHERE a.backend_xid IS NOT NULL AND a.pid <> pg_backend_pid()
UNION ALL
SELECT 'prepared transaction ' || x.gid || ' of ' || x.owner, extract(epoch FROM clock_timestamp() - x.prepared)::float8,
       true, format('ROLLBACK PREPARED %L;', x.gid)
FROM pg_prepared_xacts x WHERE x.database = current_database()
ORDER BY 2 DESC NULLS LAST
LIMIT 10
