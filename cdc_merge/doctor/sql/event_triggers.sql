-- Event triggers that see DDL.
SELECT e.evtname::text AS name, e.evtevent::text AS event, e.evtenabled::text AS enabled FROM pg_event_trigger e ORDER BY 1
