"""Step 4: the CRDT fold: a history becomes a record state, its views, frontiers and detected conflicts. Pure."""
