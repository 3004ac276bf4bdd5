"""Errors of the ground we stand on: settings and the local stack.

InfraError
├── SettingsError   a setting is unknown or wrong               exit code 2
├── BrokerError     Kafka cannot be started, reached or stopped  exit code 4
├── CatalogueError  MLflow cannot be reached, or refuses         exit code 4
│   └── NoSuchVersion  it answers, and has no such version       exit code 4
└── StackError      a local program cannot be started or stopped exit code 4
"""

__all__ = ["BrokerError", "CatalogueError", "InfraError", "NoSuchVersion", "SettingsError", "StackError"]


class InfraError(Exception):
    """Base of all expected errors of this package."""


class SettingsError(InfraError):
    """A setting is unknown or wrong."""


class BrokerError(InfraError):
    """Kafka cannot be started, reached or stopped."""


class CatalogueError(InfraError):
    """MLflow cannot be reached, or refuses."""


class NoSuchVersion(CatalogueError):
    """MLflow answers, and has no such version."""


class StackError(InfraError):
    """A program of the local stack cannot be started or stopped."""
