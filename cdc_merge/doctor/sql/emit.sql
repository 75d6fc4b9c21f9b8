-- One transactional logical message with a token ($1): costs some hundred bytes of WAL and touches no table.
SELECT (pg_logical_emit_message(true, 'cdc_merge.probe', $1::text) - '0/0')::int8
