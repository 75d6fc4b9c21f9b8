-- Version, role, identity and platform of the server; the sidecar's names as quoted SQL.
SELECT current_setting('server_version_num')::int AS version,
       pg_is_in_recovery() AS standby,
       current_setting('wal_level') AS wal_level,
       current_setting('effective_wal_level', true) AS effective_wal_level,
       current_setting('server_encoding') AS encoding,
       pg_backend_pid() AS backend_pid,
       (extract(epoch FROM clock_timestamp()) * 1000000)::int8 AS now_us,
       CASE WHEN EXISTS (SELECT 1 FROM pg_settings WHERE name LIKE 'rds.%')
                 OR EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'rds_superuser') THEN 'rds'
            WHEN EXISTS (SELECT 1 FROM pg_settings WHERE name LIKE 'alloydb.%')
                 OR EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'alloydbsuperuser') THEN 'alloydb'
            WHEN EXISTS (SELECT 1 FROM pg_settings WHERE name LIKE 'cloudsql.%')
                 OR EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'cloudsqlsuperuser') THEN 'cloudsql'
            WHEN EXISTS (SELECT 1 FROM pg_settings WHERE name LIKE 'azure.%')
                 OR EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'azure_pg_admin') THEN 'azure'
            ELSE 'plain' END AS platform,
       quote_ident($1) AS publication_sql,
       quote_literal($2) AS slot_sql,
       quote_ident(current_user) AS role_sql,
       quote_ident(current_database()) AS database_sql,
       current_database()::text AS database,
       (SELECT count(*) FROM pg_replication_origin)::int AS origins,
       (SELECT count(s.oid) FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
        WHERE d.datname = current_database())::int AS subscriptions
