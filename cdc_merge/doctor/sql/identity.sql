-- Which cluster this is. PUBLIC may ask by default; where that was taken away, the answer is a refusal.
SELECT s.system_identifier::text AS system, c.timeline_id AS timeline FROM pg_control_system() s, pg_control_checkpoint() c
