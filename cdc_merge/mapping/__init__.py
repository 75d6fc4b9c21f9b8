"""Step 2: row changes to record changes: keys resolved or quarantined, values read, copies and actors attributed. Pure."""
