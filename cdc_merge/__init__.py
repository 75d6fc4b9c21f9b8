"""cdc_merge: sees every change of several business systems, merges it, and asks about the rest."""

__version__ = "0.1.0"
