"""1: bytes → RowChange. One adapter per kind of source; decoders are pure, each reader owns its only socket."""
