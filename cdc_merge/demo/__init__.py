"""Three real PostgreSQL servers, people who edit them, and a truth to compare with."""
