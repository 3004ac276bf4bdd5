"""Settings, the local stack and container files."""

if __name__ != "acclimate.infra":  # found from the root of the repository: each class would exist twice
    raise ImportError("expected `import acclimate.infra`, found `import infra`; install with `make setup`")
