"""The wire format, pure: pgoutput, CopyData frames, transactions, timelines. No I/O, no clock, no driver."""
