-- A standby and its copy of the slot $1. A setting that the role may not see has no row in pg_settings.
WITH shown AS (SELECT name, setting FROM pg_settings)
SELECT (SELECT setting FROM shown WHERE name = 'sync_replication_slots') AS syncs_slots,
       (SELECT setting FROM shown WHERE name = 'hot_standby_feedback') AS feedback,
       (SELECT setting FROM shown WHERE name = 'primary_slot_name') AS physical_slot,
       (SELECT setting ~ '\mdbname\s*=' FROM shown WHERE name = 'primary_conninfo') AS has_dbname,
       EXISTS (SELECT FROM pg_replication_slots s WHERE s.slot_name = $1) AS has_slot,
       EXISTS (SELECT FROM pg_replication_slots s
               WHERE s.slot_name = $1 AND NOT s.temporary AND (to_jsonb(s) ->> 'synced')::bool
                 AND to_jsonb(s) ->> 'invalidation_reason' IS NULL) AS is_ready
