"""The demo: three real PostgreSQL servers, simulated users, and the ground truth of their edits."""
