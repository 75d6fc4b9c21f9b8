"""The worker: deliveries in, one durable batch after the other. The only room that writes to the store."""
