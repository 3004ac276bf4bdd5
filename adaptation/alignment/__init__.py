"""Cross-task alignment: a self-supervised encoder that an existing classifier's head understands."""
