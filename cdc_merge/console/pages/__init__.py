"""The script-free pages for people."""
