-- A heartbeat ($1: its number and time), committed and flushed at once. PUBLIC may execute it by default.
SELECT pg_logical_emit_message(true, 'cdc_merge.heartbeat', $1)::text
