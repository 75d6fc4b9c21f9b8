"""Step 5: conflict detection and the life cycle of conflicts (id, revision, settle, close). Pure."""
