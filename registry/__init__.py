"""Versioned artifacts: bundles, later signatures, catalogue and gates."""
