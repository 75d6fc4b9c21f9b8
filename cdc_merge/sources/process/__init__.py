"""A reader as a child process, and the whole protocol of the pipe between the two."""
