-- Columns of the mapped tables ($1): types, defaults, privileges. A domain has its base type's name;
-- a type that is neither built in nor an extension's has its schema's name too: an enum may be called timestamp.
WITH RECURSIVE plain (oid, typname, typnamespace, typtype, typbasetype, first) AS (
    SELECT t.oid, t.typname, t.typnamespace, t.typtype, t.typbasetype, t.oid FROM pg_type t
    UNION ALL
    SELECT t.oid, t.typname, t.typnamespace, t.typtype, t.typbasetype, p.first FROM plain p JOIN pg_type t ON t.oid = p.typbasetype
    WHERE p.typtype = 'd'
)
SELECT n.nspname || '.' || c.relname AS "table", a.attname::text AS "column", quote_ident(a.attname) AS sql,
       a.atttypid::int8 AS type_oid, CASE WHEN p.typnamespace = 'pg_catalog'::regnamespace OR p.typname IN ('citext', 'hstore') THEN p.typname::text
            ELSE quote_ident(p.typnamespace::regnamespace::text) || '.' || quote_ident(p.typname) END AS type_name, format_type(a.atttypid, a.atttypmod) AS declared,
       y.typtype = 'd' AS is_domain,
       (SELECT e.extname::text FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
        WHERE d.classid = 'pg_type'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_extension'::regclass
          AND d.deptype = 'e') AS extension,
       a.attlen = -1 AND a.attstorage IN ('x', 'e', 'm') AS toastable,
       coalesce((SELECT NOT l.collisdeterministic FROM pg_collation l WHERE l.oid = a.attcollation), false)
           AS nondeterministic,
       CASE WHEN a.attgenerated = '' THEN pg_get_expr(f.adbin, f.adrelid) END AS "default",
       has_column_privilege(c.oid, a.attnum, 'SELECT') AS may_select
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type y ON y.oid = a.atttypid
JOIN plain p ON p.first = a.atttypid AND p.typtype <> 'd'
LEFT JOIN pg_attrdef f ON f.adrelid = c.oid AND f.adnum = a.attnum
WHERE n.nspname || '.' || c.relname = ANY ($1::text[])
ORDER BY 1, a.attnum
