"""Canonical values: PostgreSQL text to value, normalisation, comparison order, key text. Pure."""
