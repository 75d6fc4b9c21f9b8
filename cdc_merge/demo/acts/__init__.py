"""The acts of the workload: each edits rows and records the expected result in the ground truth."""
