"""Checks of the configuration's meaning: each reports every problem with its path and a suggestion."""
