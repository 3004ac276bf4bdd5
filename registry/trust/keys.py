"""Private keys: Ed25519, one PEM file each, readable by its owner alone, encrypted where a passphrase is given.

They stay in files. Nothing here writes one anywhere else, and no message contains one.
"""

import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from acclimate.adaptation.errors import ConfigError

__all__ = ["new_key_file", "read_key"]

_MAX_KEY_BYTES = 10_000


def new_key_file(path: Path, passphrase: str | None) -> Ed25519PrivateKey:
    """Make a key and write it to a new file with mode 0600.

    Raises:
        ConfigError: The file exists or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    encryption: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    )
    content = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(handle)
    except FileExistsError as error:
        raise ConfigError(
            f"{path}: a file is there already; a key is never overwritten, choose another name"
        ) from error
    except OSError as error:
        raise ConfigError(f"{path}: the key could not be written: {error.strerror}") from error
    return key


def read_key(path: Path, passphrase: str | None) -> Ed25519PrivateKey:
    """Return the private key in a file.

    Raises:
        ConfigError: The file cannot be read, others may read it, or the passphrase is missing or wrong.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        with path.open("rb") as file:
            content = file.read(_MAX_KEY_BYTES)
    except OSError as error:
        raise ConfigError(f"{path}: expected a private key, found: {error.strerror}; see `acclimate keys`") from error
    if os.name == "posix" and mode & 0o077:
        raise ConfigError(f"{path}: others may read this private key (mode {mode:o}); chmod 600 {path}")
    try:
        key = serialization.load_pem_private_key(content, passphrase.encode() if passphrase else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # TypeError: a passphrase too many, or one missing. The library's own text is left out on purpose.
        raise ConfigError(
            f"{path}: expected an Ed25519 private key in PEM; damaged, or ACCLIMATE_KEY_PASSPHRASE is not its own"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path}: expected an Ed25519 private key, found another kind; see `acclimate keys init`")
    return key
