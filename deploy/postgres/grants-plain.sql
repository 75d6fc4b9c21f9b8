-- An example. `cdc-merge source grants --platform plain` prints this for your own configuration.
-- Source crm: the least privileges that cdc-merge needs. It executes none of this itself.

-- The server (once)
ALTER SYSTEM SET wal_level = 'logical';                 -- then restart the server
ALTER SYSTEM SET max_slot_wal_keep_size = '10GB';       -- what an absent reader may cost

-- The role (as a user who may create roles)
DO $$ BEGIN IF to_regrole('cdc_merge') IS NULL THEN CREATE ROLE cdc_merge LOGIN REPLICATION CONNECTION LIMIT 24; END IF; END $$;
GRANT CONNECT ON DATABASE crm TO cdc_merge;
GRANT pg_read_all_stats TO cdc_merge;                      -- for SLT02, SLT10, ROL10
GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_waldir() TO cdc_merge;    -- for CAP08; as a superuser
-- Set its password so that it appears in no history: \password cdc_merge

-- SELECT for the initial snapshot; the stream needs no grant (as the tables' owner)
GRANT USAGE ON SCHEMA app TO cdc_merge;
GRANT SELECT ON app.customer, app.sales_order TO cdc_merge;

-- The publication (as the tables' owner, with CREATE on the database)
CREATE PUBLICATION cdc_merge FOR TABLE app.customer, app.sales_order
    WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true);

-- Access
-- pg_hba.conf: the database's name, not the word replication, which does not match logical replication:
--   hostssl  crm  cdc_merge  ADDRESS/MASK  scram-sha-256

-- To revoke all of it
-- SELECT pg_drop_replication_slot('cdc_merge_crm');
-- DROP PUBLICATION IF EXISTS cdc_merge;
-- REVOKE ALL ON app.customer, app.sales_order FROM cdc_merge;
-- REVOKE ALL ON SCHEMA app FROM cdc_merge;
-- REVOKE ALL ON DATABASE crm FROM cdc_merge;
-- REVOKE ALL ON FUNCTION pg_catalog.pg_ls_waldir() FROM cdc_merge;
-- DROP ROLE cdc_merge;
