"""Proposal of a configuration from the sources' catalogs: matching tables and columns.

Rules: a proposal is to be reviewed, so each line has a confidence; read-only at the sources; sampled values are
compared and never shown or written.
"""
