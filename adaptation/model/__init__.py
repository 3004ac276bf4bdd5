"""The networks: their specification, BatchNorm access, training and the robust recipe."""
