"""The comparison of methods: streams that are the same for all, runs without labels, scores, and harm."""
