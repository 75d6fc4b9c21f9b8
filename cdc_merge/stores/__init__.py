"""Step 6: where history, checkpoints, conflicts and positions are durable. One package per kind of store."""
