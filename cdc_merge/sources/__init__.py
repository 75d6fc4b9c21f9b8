"""Step 1: change streams. One package per kind of source; every reader is a child process."""
