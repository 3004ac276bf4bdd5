"""Everything that touches Kafka: topics, messages, agents, device client, command line."""

if __name__ != "acclimate.streams":  # found from the root of the repository: each class would exist twice
    raise ImportError("expected `import acclimate.streams`, found `import streams`; install with `make setup`")
