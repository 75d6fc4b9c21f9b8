"""What the configuration must mean: each check reports every problem with its path and a suggestion."""
