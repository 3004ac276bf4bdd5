"""Versioned artifacts: bundles, later signatures, catalogue and gates."""

if __name__ != "acclimate.registry":  # found from the root of the repository: each class would exist twice
    raise ImportError("expected `import acclimate.registry`, found `import registry`; install with `make setup`")
