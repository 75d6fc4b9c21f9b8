-- The slot ($1) and which of our tables ($3, a JSON list) the publication ($2) still has: one document, so that it can be
-- asked for without waiting. to_jsonb reads columns that only some versions have.
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
         'invalidation_reason', to_jsonb(s) -> 'invalidation_reason')
     FROM pg_replication_slots s,
          (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS lsn) w
     WHERE s.slot_name = $1::text),
    'missing',
    (SELECT coalesce(jsonb_agg(wanted.name), '[]')
     FROM jsonb_array_elements_text($3::text::jsonb) AS wanted (name)
     WHERE NOT EXISTS (SELECT 1 FROM pg_publication_tables t
                       WHERE t.pubname = $2::text AND t.schemaname || '.' || t.tablename = wanted.name)))::text
