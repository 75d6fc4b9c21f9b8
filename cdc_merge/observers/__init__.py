"""Facts to metrics, log lines and traces. Observers never raise into the pipeline and never wait."""
