"""The HTTP side: API, health, metrics. Reads what is durable; cannot see SQL."""
