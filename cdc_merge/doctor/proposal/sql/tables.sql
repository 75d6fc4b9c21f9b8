-- Tables of applications, without partitions' leaves: columns in order as JSON, keys as lists of column names.
SELECT n.nspname || '.' || c.relname AS name, n.nspname AS namespace, c.relname AS plain_name,
       greatest(c.reltuples, 0)::int8 AS rows,
       has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE') AS may_select,
       ARRAY(SELECT a.attname::text FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey::int2[]) k (number)
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number
             WHERE i.indrelid = c.oid AND i.indisprimary) AS primary_key,
       (SELECT coalesce(jsonb_agg(u.columns), '[]') FROM (
            SELECT to_jsonb(ARRAY(SELECT a.attname::text FROM unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) k (number)
                                  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number)) AS columns
            FROM pg_index i
            WHERE i.indrelid = c.oid AND i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL) u) AS unique_keys,
       (SELECT coalesce(jsonb_agg(jsonb_build_object(
                   'name', a.attname, 'type_oid', a.atttypid::int8, 'type_name', format_type(a.atttypid, NULL),
                   'is_made', a.attidentity <> '' OR a.attgenerated <> ''
                              OR coalesce(pg_get_expr(d.adbin, d.adrelid), '') ~ 'nextval|uuid') ORDER BY a.attnum), '[]')
        FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'cdc_merge') AND n.nspname !~ '^pg_'
ORDER BY 1
