"""Composition: the whole sidecar, its configuration reload, its end. The only room that sees every setting."""
