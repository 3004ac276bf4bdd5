"""What travels through the topics and how it is read. It imports no sibling."""
