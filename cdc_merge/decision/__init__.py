"""5: questions → conflicts with an id and a life, decisions, effects. Pure."""
