-- The slot ($1), which of our tables ($3, a JSON list) the publication ($2) does not have, and what identifies its catalog
-- rows and those tables' in it (publication_members.py): one document, so that one query reads it without waiting. to_jsonb reads
-- columns, and pg_depend shows rows of tables, that only some versions have; a row's xmin is the transaction that wrote it.
WITH wanted AS (
    SELECT w.name, to_regclass(w.quoted) AS oid
    FROM (SELECT name, quote_ident(split_part(name, '.', 1)) || '.'
                       || quote_ident(substr(name, strpos(name, '.') + 1)) AS quoted
          FROM jsonb_array_elements_text($3::text::jsonb) AS given (name)) w
), published AS (
    SELECT t.schemaname || '.' || t.tablename AS name FROM pg_publication_tables t WHERE t.pubname = $2::text
), entry AS (
    SELECT w.name, r.oid || '/' || r.xmin::text AS row, to_jsonb(r) ->> 'prattrs' AS columns,
           md5(to_jsonb(r) ->> 'prqual') AS rows
    FROM wanted w
    CROSS JOIN LATERAL (SELECT w.oid AS oid UNION SELECT relid::oid FROM pg_partition_ancestors(w.oid)) a
    JOIN pg_publication_rel r ON r.prrelid = a.oid
    JOIN pg_publication p ON p.oid = r.prpubid AND p.pubname = $2::text
), schema_entry AS (
    SELECT w.name, 'schema ' || d.objid AS row
    FROM wanted w
    JOIN pg_class c ON c.oid = w.oid
    JOIN pg_depend d ON d.classid = to_regclass('pg_catalog.pg_publication_namespace')
                    AND d.refclassid = 'pg_namespace'::regclass AND d.refobjid = c.relnamespace
    JOIN pg_depend m ON m.classid = d.classid AND m.objid = d.objid AND m.refclassid = 'pg_publication'::regclass
    JOIN pg_publication p ON p.oid = m.refobjid AND p.pubname = $2::text
)
SELECT jsonb_build_object(
    'slot',
    (SELECT jsonb_build_object(
         'plugin', s.plugin,
         'is_ours', s.database = current_database(),
         'active', s.active,
         'wal_status', s.wal_status,
         'safe_bytes', s.safe_wal_size,
         'retained_bytes', pg_wal_lsn_diff(w.lsn, s.restart_lsn)::bigint,
         'confirmed_lsn', s.confirmed_flush_lsn::text,
         'invalidation_reason', to_jsonb(s) -> 'invalidation_reason',
         'conflicting', to_jsonb(s) -> 'conflicting',
         'inactive_since_us', (extract(epoch FROM (to_jsonb(s) ->> 'inactive_since')::timestamptz) * 1000000)::bigint,
         'catalog_xmin_age', age(s.catalog_xmin),
         'spilled_bytes', (SELECT t.spill_bytes FROM pg_stat_replication_slots t WHERE t.slot_name = s.slot_name))
     FROM pg_replication_slots s,
          (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS lsn) w
     WHERE s.slot_name = $1::text),
    'missing',
    (SELECT coalesce(jsonb_agg(wanted.name), '[]') FROM wanted WHERE wanted.name NOT IN (SELECT name FROM published)),
    'membership',
    (SELECT jsonb_build_object(
         'oid', p.oid::text,
         'generation', p.xmin::text,
         'owner', p.pubowner::text,
         'published', (SELECT jsonb_agg(o.name)
                       FROM (VALUES ('insert', p.pubinsert), ('update', p.pubupdate), ('delete', p.pubdelete),
                                    ('truncate', p.pubtruncate)) o (name, sent)
                       WHERE o.sent),
         'via_root', p.pubviaroot,
         'tables',
         (SELECT coalesce(jsonb_object_agg(w.name, jsonb_build_object(
                     'oid', w.oid::oid::text,
                     'entry', (SELECT string_agg(e.row, ' ' ORDER BY e.row)
                               FROM (SELECT e.row FROM entry e WHERE e.name = w.name
                                     UNION ALL SELECT s.row FROM schema_entry s WHERE s.name = w.name) e),
                     'columns', (SELECT string_agg(e.columns, ' ' ORDER BY e.row) FROM entry e WHERE e.name = w.name),
                     'rows', (SELECT string_agg(e.rows, ' ' ORDER BY e.row) FROM entry e WHERE e.name = w.name))),
                 '{}')
          FROM wanted w JOIN published USING (name)
          WHERE w.oid IS NOT NULL))
     FROM pg_publication p
     WHERE p.pubname = $2::text))::text
