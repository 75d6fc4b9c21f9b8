-- The size of WAL on disk; needs pg_monitor.
SELECT coalesce(sum(size), 0)::int8 AS wal_bytes FROM pg_ls_waldir()
