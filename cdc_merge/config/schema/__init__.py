"""The schema of the configuration file: pydantic models, from which its JSON Schema is generated."""
