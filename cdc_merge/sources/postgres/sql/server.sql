-- Settings that must be right before anything is created. From version 19 on `effective_wal_level` counts, not `wal_level`.
SELECT current_setting('server_version_num')::int AS version,
       coalesce(current_setting('effective_wal_level', true), current_setting('wal_level')) AS wal_level,
       current_setting('wal_level') AS configured_wal_level,
       pg_is_in_recovery() AS standby,
       current_setting('server_encoding') AS encoding,
       (SELECT r.rolsuper OR r.rolreplication
               OR EXISTS (SELECT 1 FROM pg_roles g WHERE g.rolname = 'rds_replication' AND pg_has_role(r.oid, g.oid, 'MEMBER'))
        FROM pg_roles r WHERE r.rolname = current_user) AS may_replicate
