"""One machine: the demo, a fleet that is played, and the stack in the background."""
