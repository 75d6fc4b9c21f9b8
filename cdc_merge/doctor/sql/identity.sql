-- System identifier and timeline. PUBLIC may query them by default; where that was revoked, the query is refused.
SELECT s.system_identifier::text AS system, c.timeline_id AS timeline FROM pg_control_system() s, pg_control_checkpoint() c
