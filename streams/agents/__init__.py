"""Faust agents: what runs on the stream, and the host that all of them need."""
