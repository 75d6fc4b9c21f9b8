"""A first configuration from the sources' catalogs: which tables are about the same things, and which columns match.

Rules: a proposal is for people to read and correct, so each line says how sure it is; nothing is changed at a source;
sampled values are compared and never shown or written.
"""
