"""6: where history, conflicts and positions rest. One module per kind of store; SQL in files."""
