"""2: RowChange → Change of a record. Pure: keys, types, normalisation, who wrote it and whether it is a copy."""
