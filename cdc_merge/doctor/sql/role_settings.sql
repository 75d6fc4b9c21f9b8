-- Settings of role and database, by precedence: role in database, role, database, all.
SELECT DISTINCT ON (name) split_part(g.pair, '=', 1) AS name, substr(g.pair, strpos(g.pair, '=') + 1) AS value,
       CASE WHEN s.setrole <> 0 AND s.setdatabase <> 0 THEN 'role in this database'
            WHEN s.setrole <> 0 THEN 'role' WHEN s.setdatabase <> 0 THEN 'database' ELSE 'every role' END AS scope
FROM pg_db_role_setting s
CROSS JOIN LATERAL unnest(s.setconfig) AS g (pair)
LEFT JOIN pg_database d ON d.oid = s.setdatabase
LEFT JOIN pg_roles r ON r.oid = s.setrole
WHERE (s.setdatabase = 0 OR d.datname = current_database()) AND (s.setrole = 0 OR r.rolname = current_user)
ORDER BY name, (s.setrole <> 0)::int * 2 + (s.setdatabase <> 0)::int DESC
