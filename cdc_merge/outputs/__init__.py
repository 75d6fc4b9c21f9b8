"""7: effects leave the house."""
