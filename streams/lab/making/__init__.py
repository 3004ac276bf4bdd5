"""From recordings to bundles: source models, generators and aligned encoders."""
