-- The current role: required and excessive privileges.
SELECT r.rolname::text AS name, r.rolsuper AS is_super, r.rolcanlogin AS can_login,
       r.rolsuper OR r.rolreplication
           OR EXISTS (SELECT 1 FROM pg_roles g WHERE g.rolname = 'rds_replication' AND pg_has_role(r.oid, g.oid, 'MEMBER'))
           AS may_replicate,
       r.rolsuper OR r.rolbypassrls AS bypasses_rls,
       r.rolcreatedb AS creates_databases, r.rolcreaterole AS creates_roles, r.rolconnlimit AS connection_limit,
       CASE WHEN isfinite(r.rolvaliduntil)
            THEN extract(epoch FROM r.rolvaliduntil - clock_timestamp())::float8 END AS expires_in_s,
       ARRAY(SELECT g.rolname::text FROM pg_roles g
             WHERE g.rolname IN ('rds_replication', 'rds_superuser', 'azure_pg_admin', 'cloudsqlsuperuser',
                                 'alloydbsuperuser', 'pg_monitor', 'pg_read_all_data', 'pg_read_all_stats',
                                 'pg_write_all_data')
               AND NOT r.rolsuper AND pg_has_role(r.oid, g.oid, 'MEMBER') ORDER BY 1) AS member_of,
       pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all,
       m.signature AS message_function, has_function_privilege(m.oid, 'EXECUTE') AS may_emit
FROM pg_roles r
LEFT JOIN (SELECT p.oid, p.oid::regprocedure::text AS signature FROM pg_proc p
           WHERE p.proname = 'pg_logical_emit_message' AND p.pronamespace = 'pg_catalog'::regnamespace
             AND p.proargtypes[2] = 'text'::regtype) m ON true
WHERE r.rolname = current_user
LIMIT 1
