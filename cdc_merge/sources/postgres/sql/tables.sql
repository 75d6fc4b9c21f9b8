-- Tables as the stream and the initial snapshot show them. The replica identity as Postgres chooses it (RelationGetReplicaIndex).
WITH wanted AS (
    SELECT c.oid, n.nspname || '.' || c.relname AS table_name, n.nspname, c.relname, c.relkind, c.relreplident, c.reltuples
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname || '.' || c.relname = ANY ($1::text[]) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
)
SELECT w.table_name, w.oid::int8 AS oid, w.nspname AS namespace, w.relname AS name, w.relkind::text AS kind,
       w.relreplident::text AS identity,
       -- A partitioned table has no rows of its own: its leaves' estimates are summed.
       CASE w.relkind WHEN 'p'
            THEN (SELECT coalesce(sum(greatest(l.reltuples, 0)), 0) FROM pg_partition_tree(w.oid) p
                  JOIN pg_class l ON l.oid = p.relid WHERE p.isleaf)
            ELSE greatest(w.reltuples, 0) END::int8 AS expected_rows,
       has_table_privilege(w.oid, 'SELECT') OR has_any_column_privilege(w.oid, 'SELECT') AS may_select,
       coalesce((SELECT i.indkey::int2[] FROM pg_index i
                 WHERE i.indrelid = w.oid AND i.indisvalid
                   AND CASE w.relreplident WHEN 'd' THEN i.indisprimary AND i.indimmediate
                                           WHEN 'i' THEN i.indisreplident ELSE false END), '{}') AS identity_numbers,
       coalesce((SELECT i.indkey::int2[] FROM pg_index i WHERE i.indrelid = w.oid AND i.indisprimary), '{}') AS key_numbers
FROM wanted w
