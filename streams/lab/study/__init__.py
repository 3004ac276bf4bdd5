"""What all studies share: folders that can be resumed, worker processes, and what is made once and kept."""
