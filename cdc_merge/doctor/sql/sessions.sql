-- Sessions of the sidecar ($1 is its application_name) except this one. Those of other roles need pg_read_all_stats.
SELECT CASE a.backend_type WHEN 'walsender' THEN 'replication connection' ELSE 'connection' END
           || ' of process ' || a.pid || ', role ' || a.usename AS who,
       format('SELECT pg_terminate_backend(%s);', a.pid) AS sql
FROM pg_stat_activity a
WHERE a.application_name = $1 AND a.pid <> pg_backend_pid()
ORDER BY a.pid
