"""Published ways to adapt a classifier to the stream of one device, one per file, behind one protocol (`method`)."""
