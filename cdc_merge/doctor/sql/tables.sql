-- Every table that is published ($1) or mapped ($2), and the leaves of partitioned ones: at a write the server checks
-- identity, column list and row filter of the leaf. Lists and filters exist from version 15 on (to_jsonb).
WITH member AS (
    SELECT c.oid, c.relkind, t.schemaname || '.' || t.tablename AS name, to_jsonb(t) ->> 'rowfilter' AS row_filter,
           r.oid IS NOT NULL AS is_listed, to_jsonb(r) -> 'prattrs' AS list_numbers, to_jsonb(r) ->> 'prqual' AS filter_tree
    FROM pg_publication_tables t
    JOIN pg_namespace n ON n.nspname = t.schemaname
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
    LEFT JOIN pg_publication_rel r ON r.prrelid = c.oid
        AND r.prpubid = (SELECT p.oid FROM pg_publication p WHERE p.pubname = $1)
    WHERE t.pubname = $1
), named AS (
    SELECT m.oid, m.relkind, m.name, m.row_filter, m.is_listed,
           CASE WHEN jsonb_typeof(m.list_numbers) = 'array' THEN
               ARRAY(SELECT a.attname::text FROM jsonb_array_elements_text(m.list_numbers) l (number)
                     JOIN pg_attribute a ON a.attrelid = m.oid AND a.attnum = l.number::int) END AS listed,
           ARRAY(SELECT DISTINCT a.attname::text
                 FROM regexp_matches(coalesce(m.filter_tree, ''), ':varattno (\d+)', 'g') v
                 JOIN pg_attribute a ON a.attrelid = m.oid AND a.attnum = v[1]::int) AS filter_columns
    FROM member m
), written AS (
    SELECT m.oid, m.name AS published_as, m.row_filter, m.listed, m.filter_columns, m.is_listed FROM named m
    UNION ALL
    SELECT p.relid, m.name, m.row_filter, m.listed, m.filter_columns, m.is_listed
    FROM named m CROSS JOIN LATERAL pg_partition_tree(m.oid) p
    WHERE m.relkind = 'p' AND p.isleaf AND p.relid <> m.oid
), wanted AS (
    SELECT w.* FROM written w
    UNION ALL
    SELECT c.oid, NULL, NULL, NULL, '{}', false
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname || '.' || c.relname = ANY ($2::text[]) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
      AND c.oid NOT IN (SELECT w.oid FROM written w)
), identified AS (
    SELECT w.*, c.relname, c.relkind, c.relpersistence, c.relrowsecurity, c.relowner, c.relreplident, c.reltuples, n.nspname,
           (SELECT i.indexrelid FROM pg_index i
            WHERE i.indrelid = c.oid AND i.indisvalid
              AND CASE c.relreplident WHEN 'd' THEN i.indisprimary AND i.indimmediate
                                      WHEN 'i' THEN i.indisreplident ELSE false END) AS identity_index
    FROM wanted w JOIN pg_class c ON c.oid = w.oid JOIN pg_namespace n ON n.oid = c.relnamespace
)
SELECT t.nspname || '.' || t.relname AS "table", format('%I.%I', t.nspname, t.relname) AS sql, t.relkind::text AS kind,
       t.relpersistence::text AS persistence, t.published_as, t.relrowsecurity AS has_row_security,
       pg_has_role(t.relowner, 'USAGE') AS owns, quote_ident(pg_get_userbyid(t.relowner)) AS owner_sql,
       has_table_privilege(t.oid, 'SELECT') OR has_any_column_privilege(t.oid, 'SELECT') AS may_select,
       has_schema_privilege(t.nspname, 'USAGE') AS may_use_schema, quote_ident(t.nspname) AS schema_sql,
       t.relreplident::text AS identity,
       ARRAY(SELECT a.attname::text FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey::int2[]) k (number)
             JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.number
             WHERE i.indexrelid = t.identity_index) AS identity_columns,
       EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = t.oid AND i.indisprimary) AS has_primary_key,
       EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = t.oid AND i.indisprimary AND NOT i.indimmediate)
           AS primary_key_is_deferrable,
       (SELECT quote_ident(x.relname) FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
        WHERE i.indrelid = t.oid AND i.indisunique AND i.indimmediate AND i.indisvalid
          AND i.indpred IS NULL AND i.indexprs IS NULL
          AND NOT EXISTS (SELECT 1 FROM unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) k (number)
                          JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.number WHERE NOT a.attnotnull)
        ORDER BY i.indisprimary DESC, i.indnkeyatts, x.relname LIMIT 1) AS best_index,
       t.is_listed, t.listed, t.filter_columns, t.row_filter,
       ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = t.oid AND a.attgenerated = 's'
             AND NOT a.attisdropped) AS generated_stored,
       ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = t.oid AND a.attgenerated = 'v'
             AND NOT a.attisdropped) AS generated_virtual,
       greatest(t.reltuples, 0)::int8 AS expected_rows,
       CASE WHEN t.relkind IN ('r', 'm') THEN coalesce(pg_table_size(t.oid), 0) ELSE 0 END AS bytes,
       ARRAY(SELECT g.tgname::text FROM pg_trigger g WHERE g.tgrelid = t.oid AND NOT g.tgisinternal
             AND g.tgenabled <> 'D' AND (g.tgtype & 3) = 3 ORDER BY 1) AS triggers
FROM identified t
ORDER BY 1
