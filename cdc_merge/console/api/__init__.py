"""The API under `/api/v1`: one router a subject."""
