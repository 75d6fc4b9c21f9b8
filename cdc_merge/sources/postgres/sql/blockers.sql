-- Open transactions that a new slot waits for. Rows of other roles are hidden without pg_read_all_stats.
SELECT 'process ' || a.pid || coalesce(' of ' || a.usename, '') || ', open for '
       || coalesce(date_trunc('second', clock_timestamp() - a.xact_start)::text, 'an unknown time') AS who
FROM pg_stat_activity a
WHERE a.backend_xid IS NOT NULL AND a.pid <> pg_backend_pid()
UNION ALL
SELECT 'prepared transaction of ' || x.owner || ', open for ' || date_trunc('second', clock_timestamp() - x.prepared)::text
FROM pg_prepared_xacts x
LIMIT 5
