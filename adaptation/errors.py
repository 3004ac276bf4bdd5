"""Errors that callers are expected to meet; every other exception is a bug.

AcclimateError
├── ConfigError          an option or setting is wrong             exit code 2
│   └── NotAdaptable     this network has nothing for this method  exit code 2, a finding where methods are compared
├── DataError            what a device or file delivered is wrong  exit code 3, dead letter in a stream
└── ContractError        an artifact is refused                    exit code 3, the last good one stays
"""

__all__ = ["AcclimateError", "ConfigError", "ContractError", "DataError", "NotAdaptable"]


class AcclimateError(Exception):
    """Base of all expected errors; the message says what was expected, what came and what to do."""


class ConfigError(AcclimateError):
    """An option or setting is wrong."""


class NotAdaptable(ConfigError):
    """The network has nothing that the method could adapt: it would be the source under another name."""


class DataError(AcclimateError):
    """Delivered data is wrong.

    Args:
        message: The text about what was expected and what came.
        reason: Stable snake_case word for counting and filtering, e.g. ``wrong_shape``.
    """

    def __init__(self, message: str, reason: str = "invalid") -> None:
        super().__init__(message)
        self.reason = reason


class ContractError(AcclimateError):
    """An artifact is damaged, incomplete or does not fit."""
