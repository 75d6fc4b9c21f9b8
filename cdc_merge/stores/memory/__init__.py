"""The store in memory, for tests and benches; it keeps the same contract."""
