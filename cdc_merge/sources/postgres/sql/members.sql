-- The tables of a publication among those that we read, with column list and row filter (both since version 15).
SELECT t.schemaname || '.' || t.tablename AS table_name,
       ARRAY(SELECT jsonb_array_elements_text(
                 CASE WHEN jsonb_typeof(to_jsonb(t) -> 'attnames') = 'array' THEN to_jsonb(t) -> 'attnames' ELSE '[]' END))
           AS columns,
       to_jsonb(t) ->> 'rowfilter' AS row_filter
FROM pg_publication_tables t
WHERE t.pubname = $1 AND t.schemaname || '.' || t.tablename = ANY ($2::text[])
