"""PostgreSQL: one reader per source over logical replication, its slot and its publication."""
