"""The read side: what console and command line answer from the store, as documents."""
