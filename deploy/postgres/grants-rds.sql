-- An example. `cdc-merge source grants --platform rds` prints this for your own configuration.
-- Source crm: the least privileges that cdc-merge needs. It executes none of this itself.

-- The server (once)
-- In the parameter group: rds.logical_replication = 1, max_slot_wal_keep_size = 10240 (MB); reboot.

-- The role (as a user who may create roles)
DO $$ BEGIN IF to_regrole('cdc_merge') IS NULL THEN CREATE ROLE cdc_merge LOGIN CONNECTION LIMIT 24; END IF; END $$;
GRANT rds_replication TO cdc_merge;
GRANT CONNECT ON DATABASE crm TO cdc_merge;
GRANT pg_monitor TO cdc_merge;                             -- for CAP08, SLT02, SLT10, ROL10
-- Set its password so that it appears in no history: \password cdc_merge

-- SELECT for the initial snapshot; the stream needs no grant (as the tables' owner)
GRANT USAGE ON SCHEMA app TO cdc_merge;
GRANT SELECT ON app.customer, app.sales_order TO cdc_merge;

-- The publication (as the tables' owner, with CREATE on the database)
CREATE PUBLICATION cdc_merge FOR TABLE app.customer, app.sales_order
    WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true);

-- Access
-- In the security group: allow the sidecar's address on the server's port.

-- To revoke all of it
-- SELECT pg_drop_replication_slot('cdc_merge_crm');
-- DROP PUBLICATION IF EXISTS cdc_merge;
-- REVOKE ALL ON app.customer, app.sales_order FROM cdc_merge;
-- REVOKE ALL ON SCHEMA app FROM cdc_merge;
-- REVOKE ALL ON DATABASE crm FROM cdc_merge;
-- REVOKE ALL ON FUNCTION pg_catalog.pg_ls_waldir() FROM cdc_merge;
-- DROP ROLE cdc_merge;
