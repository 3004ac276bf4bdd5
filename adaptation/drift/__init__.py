"""Shift and drift: how far a device is from the source, since when, and whether it is alone with that."""
