-- Which tables would refuse their own UPDATE and DELETE once they are published?
-- psql -v schema=app -f before-publishing.sql          Run it before CREATE PUBLICATION; it changes nothing.
SELECT format('%I.%I', n.nspname, c.relname) AS "table",
       CASE WHEN c.relreplident = 'n' THEN 'replica identity is NOTHING'
            WHEN c.relreplident = 'i' THEN 'its identity index was dropped or is invalid'
            WHEN EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary) THEN 'its primary key is DEFERRABLE'
            ELSE 'it has no primary key' END AS why,
       format('ALTER TABLE %I.%I REPLICA IDENTITY %s;', n.nspname, c.relname,
              coalesce((SELECT format('USING INDEX %I', x.relname)
                        FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
                        WHERE i.indrelid = c.oid AND i.indisunique AND i.indimmediate AND i.indisvalid
                          AND i.indpred IS NULL AND i.indexprs IS NULL
                          AND NOT EXISTS (SELECT 1 FROM unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) k (number)
                                          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number
                                          WHERE NOT a.attnotnull)
                        ORDER BY i.indnkeyatts, x.relname LIMIT 1), 'FULL')) AS fix
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = :'schema' AND c.relkind = 'r' AND c.relpersistence = 'p' AND c.relreplident <> 'f'
  AND NOT EXISTS (SELECT 1 FROM pg_index i
                  WHERE i.indrelid = c.oid AND i.indisvalid
                    AND CASE c.relreplident WHEN 'd' THEN i.indisprimary AND i.indimmediate
                                            WHEN 'i' THEN i.indisreplident ELSE false END)
ORDER BY 1;
