"""The keys of a fleet as a folder: made, rotated and revoked by whoever has the root key.

root.pem           signs trust.json and nothing else; take it off-line
release.pem        the controller's
gate.pem           where bundles are registered and gates run
agent.pem          of the agents that decide for single devices
approver-NAME.pem  of each approver; give it away
trust.json         whom to believe, for every receiver; it holds no secret
"""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from acclimate.adaptation.errors import ConfigError
from acclimate.registry.canonical import canonical_bytes
from acclimate.registry.folder import replace_file
from acclimate.registry.trust.envelope import Envelope, parse_envelope, public_hex, sign
from acclimate.registry.trust.keys import new_key_file, read_key
from acclimate.registry.trust.trust import TRUST_TYPE, Key, Role, Trust, newer_trust, read_trust

__all__ = ["TRUST_FILE", "add_key", "init_keys", "read_trust_file", "revoke_key", "rotate_key"]

TRUST_FILE = "trust.json"


def init_keys(
    folder: Path, fleet: str, approver_names: tuple[str, ...], approvals: int, passphrase: str | None, now_ms: int
) -> Trust:
    """Make all keys of a new fleet and the first trust.json.

    Args:
        folder: New or empty.
        fleet: Name.
        approver_names: The names of those who may approve releases; a file name each.
        approvals: The number of approvals that a release needs, 0 to 2.
        passphrase: Encrypts all files; None leaves them plain.
        now_ms: The time from which on the keys are good, in milliseconds since 1970.

    Raises:
        ConfigError: The folder holds keys, or there are fewer approvers than approvals.
    """
    if (folder / TRUST_FILE).exists():
        raise ConfigError(f"{folder}: the fleet's keys are there already; `acclimate keys rotate` replaces one")
    if approvals > len(set(approver_names)):
        raise ConfigError(f"{approvals} approvals need as many approvers, found {len(set(approver_names))}")
    files: list[tuple[str, Role, str]] = [("release.pem", "release", "controller"), ("gate.pem", "gate", "gate")]
    files += [("agent.pem", "agent", "agent")]
    files += [(f"approver-{name}.pem", "approver", name) for name in dict.fromkeys(approver_names)]
    taken = [name for name in ("root.pem", *(name for name, _, _ in files)) if (folder / name).exists()]
    if taken:
        raise ConfigError(f"{folder / taken[0]}: a key is there already and is never overwritten; choose a new folder")
    root = new_key_file(folder / "root.pem", passphrase)
    keys = tuple(
        Key(owner=owner, role=role, public_key=public_hex(new_key_file(folder / name, passphrase)), from_ms=now_ms)
        for name, role, owner in files
    )
    trust = Trust(fleet=fleet, version=1, root=(public_hex(root),), approvals=approvals, keys=keys)
    _write(folder / TRUST_FILE, sign(TRUST_TYPE, canonical_bytes(trust), [root]))
    return trust


def add_key(folder: Path, root: Path, role: Role, owner: str, passphrase: str | None, now_ms: int) -> Path:
    """Make another key of a role, for an owner who has none, and return its file.

    Raises:
        ConfigError: The owner has one, the file exists, or the root key is not the fleet's.
    """
    known, trust = read_trust_file(folder / TRUST_FILE)
    if any(key.role == role and key.owner == owner and key.until_ms is None for key in trust.keys):
        raise ConfigError(f"{owner} has a key of role {role}; `acclimate keys rotate` replaces it")
    signer = _root_key(root, trust, passphrase)
    path, fresh = _new_key(folder, trust, role, owner, passphrase, now_ms)
    changed = {"version": trust.version + 1, "keys": (*trust.keys, fresh)}
    _replace(folder, known, trust.model_copy(update=changed), signer)
    return path


def rotate_key(
    folder: Path, root: Path, role: Role, owner: str | None, window_ms: int, passphrase: str | None, now_ms: int
) -> Path:
    """Make a new key of a role beside the old one and return its file; the old one is good for the window, and no more.

    Args:
        folder: The folder of trust.json, which also gets the new key.
        root: The root key's file.
        role: The role whose key is replaced.
        owner: The holder of the key, where the role has several.
        window_ms: The time in which both keys are believed, in milliseconds, by what statements say of their time.
        passphrase: The passphrase of the root key and of the new one.
        now_ms: Present time.

    Raises:
        ConfigError: There is no such key, several, or the root key is not the fleet's.
    """
    known, trust = read_trust_file(folder / TRUST_FILE)
    old = [k for k in trust.keys if k.role == role and owner in (None, k.owner) and k.until_ms is None]
    if len(old) != 1:
        owners = sorted(k.owner for k in trust.keys if k.role == role and k.until_ms is None)
        raise ConfigError(f"expected one {role} key to rotate, found those of {owners}; name the owner with --owner")
    signer = _root_key(root, trust, passphrase)
    path, fresh = _new_key(folder, trust, role, old[0].owner, passphrase, now_ms)
    ending = old[0].model_copy(update={"until_ms": now_ms + window_ms})
    keys = tuple(ending if key == old[0] else key for key in trust.keys)
    _replace(folder, known, trust.model_copy(update={"version": trust.version + 1, "keys": (*keys, fresh)}), signer)
    return path


def revoke_key(folder: Path, root: Path, key_id: str, passphrase: str | None) -> Key:
    """Take a key out of trust.json for ever and return what it was.

    Args:
        folder: The folder of trust.json.
        root: The root key's file.
        key_id: The id or its beginning.
        passphrase: The passphrase of the root key.

    Raises:
        ConfigError: There is no such key, several, or the root key is not the fleet's.
    """
    known, trust = read_trust_file(folder / TRUST_FILE)
    found = [key for key in trust.keys if key_id and key.key_id.startswith(key_id)]
    if len(found) != 1:
        ids = ", ".join(f"{key.key_id[:12]} ({key.role} of {key.owner})" for key in trust.keys)
        raise ConfigError(f"expected the id of one key, got {key_id!r}; there are {ids}")
    changed = {
        "version": trust.version + 1,
        "keys": tuple(key for key in trust.keys if key is not found[0]),
        "revoked": (*trust.revoked, found[0].key_id),
    }
    _replace(folder, known, trust.model_copy(update=changed), _root_key(root, trust, passphrase))
    return found[0]


def read_trust_file(path: Path) -> tuple[Envelope, Trust]:
    """Return the statement in a file, as signed and as read.

    Raises:
        ConfigError: There is no such file.
        ContractError: The file does not hold such a statement.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: expected the fleet's trust.json, found: {error.strerror}; `acclimate keys init` makes one"
        ) from error
    envelope = parse_envelope(raw, str(path))
    return envelope, read_trust(envelope)


def _root_key(path: Path, trust: Trust, passphrase: str | None) -> Ed25519PrivateKey:
    key = read_key(path, passphrase)
    if public_hex(key) not in trust.root:
        raise ConfigError(f"{path}: this is not the root key of fleet {trust.fleet}")
    return key


def _new_key(
    folder: Path, trust: Trust, role: Role, owner: str, passphrase: str | None, now_ms: int
) -> tuple[Path, Key]:
    stem = f"approver-{owner}" if role == "approver" else role
    path = folder / f"{stem}-{trust.version + 1}.pem"
    public = public_hex(new_key_file(path, passphrase))
    return path, Key(owner=owner, role=role, public_key=public, from_ms=now_ms)


def _replace(folder: Path, known: Envelope, trust: Trust, root: Ed25519PrivateKey) -> None:
    offered = sign(TRUST_TYPE, canonical_bytes(trust), [root])
    newer_trust(known, offered)
    _write(folder / TRUST_FILE, offered)


def _write(path: Path, envelope: Envelope) -> None:
    replace_file(path, envelope.model_dump_json(indent=1).encode() + b"\n")
