"""cdc_merge: a CDC sidecar that reads several business systems, merges their records with CRDTs over HLC histories, and
brings what cannot be merged to the right person."""

__version__ = "0.1.0"
