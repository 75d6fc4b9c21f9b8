"""One module per command. Data on stdout, all else on stderr; exit codes of the contract."""
