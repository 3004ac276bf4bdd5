"""Measurements; tests hold no time limits, this does the timing."""
