-- Columns of tables, in table order. A domain appears under its base type's name, as in the stream.
WITH RECURSIVE plain (oid, typname, typtype, typbasetype, first) AS (
    SELECT t.oid, t.typname, t.typtype, t.typbasetype, t.oid FROM pg_type t
    WHERE t.oid IN (SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = ANY ($1::oid[]))
    UNION ALL
    SELECT t.oid, t.typname, t.typtype, t.typbasetype, p.first FROM plain p JOIN pg_type t ON t.oid = p.typbasetype
    WHERE p.typtype = 'd'
)
SELECT a.attrelid::int8 AS table_oid, a.attnum::int AS number, a.attname::text AS name, a.atttypid::int8 AS type_oid,
       p.typname::text AS type_name, a.attgenerated <> '' AS is_generated,
       has_column_privilege(a.attrelid, a.attnum, 'SELECT') AS may_select
FROM pg_attribute a
JOIN plain p ON p.first = a.atttypid AND p.typtype <> 'd'
WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum
