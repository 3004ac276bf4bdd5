"""Settings, the local stack and container files."""
