"""One router a subject of the API."""
