"""Who answers a window, and with which bytes: the same on a worker and on a device. Nothing here knows Kafka."""
