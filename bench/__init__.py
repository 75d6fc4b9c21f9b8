"""How fast the whole way is, measured on real servers: `python -m bench [throughput] [detection] [large] [long-history]`."""
