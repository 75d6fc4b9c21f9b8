"""The small stories that the demo's people play: each changes rows and says what must come of it."""
