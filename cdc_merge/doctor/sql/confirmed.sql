-- The confirmed LSN of the slot $1.
SELECT (s.confirmed_flush_lsn - '0/0')::int8 FROM pg_replication_slots s WHERE s.slot_name = $1
