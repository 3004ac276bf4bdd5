"""Work on recordings alone: nothing here knows Kafka."""
