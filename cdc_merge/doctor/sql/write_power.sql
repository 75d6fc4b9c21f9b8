-- The tables that write-back may change ($1): missing privileges of the role, and triggers that may change written values.
SELECT n.nspname || '.' || c.relname AS "table", c.oid::regclass::text AS sql,
       ARRAY(SELECT wanted FROM unnest(ARRAY['INSERT', 'UPDATE', 'DELETE']) wanted
             WHERE NOT has_table_privilege(c.oid, wanted)) AS ungranted,
       ARRAY(SELECT g.tgname::text FROM pg_trigger g
             WHERE g.tgrelid = c.oid AND NOT g.tgisinternal AND g.tgenabled <> 'D' AND (g.tgtype & 3) = 3
             ORDER BY 1) AS rewriting
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname || '.' || c.relname = ANY ($1::text[])
ORDER BY 1
