"""What the configuration file may look like: pydantic shapes, from which its JSON Schema is generated."""
