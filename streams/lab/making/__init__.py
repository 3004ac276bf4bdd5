"""Make bundles from recordings: source models, generators and aligned encoders."""
