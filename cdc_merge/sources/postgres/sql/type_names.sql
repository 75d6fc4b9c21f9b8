-- The names of the types $1, as in columns.sql: the stream sends no name that says which type a user's is.
WITH RECURSIVE walked (first, oid, is_array) AS (
    SELECT t.oid, t.oid, false FROM pg_type t WHERE t.oid = ANY ($1::oid[])
    UNION ALL
    SELECT w.first, CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.typelem END, w.is_array OR t.typtype <> 'd'
    FROM walked w JOIN pg_type t ON t.oid = w.oid
    WHERE t.typtype = 'd' OR (NOT w.is_array AND t.typinput = 'pg_catalog.array_in'::regproc)
),
plain (first, oid, type_name) AS (
    SELECT w.first, t.oid,
           CASE WHEN t.typinput <> 'pg_catalog.array_in'::regproc
                     AND (s.nspname = 'pg_catalog' OR (t.typname = 'hstore' AND t.typtype = 'b'))
                THEN CASE WHEN w.is_array THEN '_' ELSE '' END || t.typname
                ELSE quote_ident(s.nspname) || '.' || quote_ident(t.typname) || CASE WHEN w.is_array THEN '[]' ELSE '' END
           END
    FROM walked w JOIN pg_type t ON t.oid = w.oid JOIN pg_namespace s ON s.oid = t.typnamespace
    WHERE t.typtype <> 'd' AND (w.is_array OR t.typinput <> 'pg_catalog.array_in'::regproc)
)
SELECT p.first::int8 AS type_oid, p.type_name FROM plain p
