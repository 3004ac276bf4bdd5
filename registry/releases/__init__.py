"""Releases: signed statements of what is in force, who asked for it and who may run it."""
