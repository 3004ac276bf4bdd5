"""Everything that touches Kafka: topics, messages, agents, device client, command line."""
