"""Recordings: what is read, selected, simulated, corrupted and augmented."""
