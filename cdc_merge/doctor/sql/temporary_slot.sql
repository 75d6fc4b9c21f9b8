-- A slot that ends with its session.
SELECT slot_name::text FROM pg_create_logical_replication_slot($1, 'pgoutput', temporary => true)
