-- The publication. Generated columns can be published from version 18 on.
SELECT p.pubinsert AS publishes_insert, p.pubupdate AS publishes_update, p.pubdelete AS publishes_delete,
       p.pubtruncate AS publishes_truncate, p.pubviaroot AS via_root, p.puballtables AS all_tables,
       coalesce(to_jsonb(p) ->> 'pubgencols', 'n') = 's' AS sends_generated,
       pg_get_userbyid(p.pubowner)::text AS owner, pg_get_userbyid(p.pubowner) = current_user AS is_ours
FROM pg_publication p
WHERE p.pubname = $1
