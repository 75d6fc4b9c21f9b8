"""Facts → metrics and log lines. Observers never raise into the pipeline and never wait."""
