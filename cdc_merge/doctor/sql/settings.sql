-- Settings that decide whether reading is possible and the slot is safe; sizes in bytes, times in milliseconds.
SELECT s.name, s.setting, s.unit, s.pending_restart,
       CASE WHEN s.vartype IN ('integer', 'real')
            THEN s.setting::float8 * CASE WHEN s.setting::float8 < 0 THEN 1 ELSE CASE s.unit
                 WHEN 'B' THEN 1 WHEN 'kB' THEN 1024 WHEN '8kB' THEN 8192 WHEN 'MB' THEN 1048576
                 WHEN 'ms' THEN 1 WHEN 's' THEN 1000 WHEN 'min' THEN 60000 ELSE 1 END END END AS number
FROM pg_settings s
WHERE s.pending_restart
   OR s.name IN ('wal_level', 'max_replication_slots', 'max_wal_senders', 'max_slot_wal_keep_size',
                 'idle_replication_slot_timeout', 'wal_sender_timeout', 'wal_sender_shutdown_timeout',
                 'logical_decoding_work_mem', 'track_commit_timestamp', 'max_connections',
                 'hot_standby_feedback', 'primary_slot_name', 'sync_replication_slots', 'synchronized_standby_slots',
                 'synchronous_standby_names', 'data_directory')
ORDER BY s.name
