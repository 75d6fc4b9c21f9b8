-- Columns of tables, in table order. A type's name says which type it is (values/type_names.py): a domain is its base type, a
-- built-in has its bare name, every other type its schema's too.
WITH RECURSIVE walked (first, oid, is_array) AS (
    SELECT t.oid, t.oid, false FROM pg_type t WHERE t.oid IN (SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = ANY ($1::oid[]))
    UNION ALL
    SELECT w.first, CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.typelem END, w.is_array OR t.typtype <> 'd'
    FROM walked w JOIN pg_type t ON t.oid = w.oid
    WHERE t.typtype = 'd' OR (NOT w.is_array AND t.typinput = 'pg_catalog.array_in'::regproc)
),
plain (first, oid, type_name) AS (
    SELECT w.first, t.oid,
           CASE WHEN t.typinput <> 'pg_catalog.array_in'::regproc
                     AND (s.nspname = 'pg_catalog' OR (t.typname = 'hstore' AND t.typtype = 'b'))
                THEN CASE WHEN w.is_array THEN '_' ELSE '' END || t.typname
                ELSE quote_ident(s.nspname) || '.' || quote_ident(t.typname) || CASE WHEN w.is_array THEN '[]' ELSE '' END
           END
    FROM walked w JOIN pg_type t ON t.oid = w.oid JOIN pg_namespace s ON s.oid = t.typnamespace
    WHERE t.typtype <> 'd' AND (w.is_array OR t.typinput <> 'pg_catalog.array_in'::regproc)
)
SELECT a.attrelid::int8 AS table_oid, a.attnum::int AS number, a.attname::text AS name, a.atttypid::int8 AS type_oid,
       p.type_name, a.attgenerated <> '' AS is_generated,
       has_column_privilege(a.attrelid, a.attnum, 'SELECT') AS may_select
FROM pg_attribute a
JOIN plain p ON p.first = a.atttypid
WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum
