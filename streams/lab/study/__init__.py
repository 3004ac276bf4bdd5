"""The base of all studies: folders that can be resumed, worker processes, and sources made once and kept."""
