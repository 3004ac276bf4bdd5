"""Continual learning from delayed labels: one pure step, what it remembers, and what is measured of it."""
