"""Signed statements: DSSE envelopes (Dead Simple Signing Envelope 1.0) with Ed25519 over the exact bytes.

A signature covers the type and the bytes together, so that a statement of one kind is never taken for another.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field

from acclimate.adaptation.errors import ContractError
from acclimate.registry.canonical import Digest, Strict, refusing

__all__ = [
    "Envelope",
    "Signature",
    "detached_signers",
    "key_id",
    "parse_envelope",
    "pre_authentication",
    "public_hex",
    "sign",
    "sign_detached",
    "signers",
]

MAX_ENVELOPE_BYTES = 512 * 1024
_MAX_SIGNATURES = 16


class Signature(Strict):
    """One signature, base64, and the id of the key that made it."""

    keyid: Digest
    sig: Annotated[str, Field(max_length=88)]


Signatures = Annotated[tuple[Signature, ...], Field(min_length=1, max_length=_MAX_SIGNATURES)]


class Envelope(Strict):
    """A statement, base64, its type, and who signed it; field names are DSSE's."""

    payloadType: Annotated[str, Field(max_length=100)]
    payload: Annotated[str, Field(max_length=MAX_ENVELOPE_BYTES)]
    signatures: Signatures

    def content(self) -> bytes:
        """Return the statement's bytes, whoever signed them.

        Raises:
            ContractError: The payload is not base64.
        """
        return _decoded(self.payload)


class Detached(Strict):
    """The signatures of a file, which lies beside them."""

    signatures: Signatures


def public_hex(key: Ed25519PrivateKey) -> str:
    """Return the public half of a key, 64 hexadecimal digits."""
    return key.public_key().public_bytes_raw().hex()


def key_id(public: str) -> str:
    """Return the id of a public key: the SHA-256 of its 32 bytes.

    >>> key_id("00" * 32)[:12]
    '66687aadf862'
    """
    return hashlib.sha256(bytes.fromhex(public)).hexdigest()


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """Return the bytes that are signed (DSSE's PAE).

    >>> pre_authentication("http://example.com/HelloWorld", b"hello world")
    b'DSSEv1 29 http://example.com/HelloWorld 11 hello world'
    """
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def sign(payload_type: str, payload: bytes, keys: Sequence[Ed25519PrivateKey]) -> Envelope:
    """Return a statement signed with each of these keys; equal arguments give equal bytes."""
    return Envelope(
        payloadType=payload_type,
        payload=base64.b64encode(payload).decode(),
        signatures=_signatures(payload_type, payload, keys),
    )


def sign_detached(payload_type: str, content: bytes, keys: Sequence[Ed25519PrivateKey]) -> bytes:
    """Return a file of signatures of another file."""
    return Detached(signatures=_signatures(payload_type, content, keys)).model_dump_json().encode()


def parse_envelope(raw: bytes, what: str) -> Envelope:
    """Return the envelope with this JSON; nothing is believed yet.

    Args:
        raw: The JSON, at most 512 KiB.
        what: The statement's name in messages.

    Raises:
        ContractError: The JSON is not an envelope.
    """
    if len(raw) > MAX_ENVELOPE_BYTES:
        raise ContractError(f"{what}: expected at most {MAX_ENVELOPE_BYTES} bytes, found {len(raw)}")
    with refusing(f"{what}: expected a signed statement, found"):
        return Envelope.model_validate_json(raw)


def signers(envelope: Envelope, payload_type: str, keys: Mapping[str, str], what: str) -> frozenset[str]:
    """Return the ids of the keys whose signature of this statement holds; the caller says how many are enough.

    Args:
        envelope: The statement.
        payload_type: The type that it must have.
        keys: The public keys (hex) by id; signatures by others are passed over.
        what: The name in messages.

    Raises:
        ContractError: The type is another, or a signature that claims one of these keys does not hold.
    """
    if envelope.payloadType != payload_type:
        raise ContractError(
            f"{what}: expected a statement of type {payload_type}, found {envelope.payloadType[:100]!r}"
        )
    return _good(envelope.signatures, pre_authentication(payload_type, envelope.content()), keys, what)


def detached_signers(
    raw: bytes, payload_type: str, content: bytes, keys: Mapping[str, str], what: str
) -> frozenset[str]:
    """Return the ids of the keys whose signature of a file holds.

    Args:
        raw: The signatures, from `sign_detached`.
        payload_type, content: The type and the bytes of the file.
        keys: The public keys (hex) by id; signatures by others are passed over.
        what: The name in messages.

    Raises:
        ContractError: No signatures are there, or one that claims one of these keys does not hold.
    """
    if len(raw) > MAX_ENVELOPE_BYTES:
        raise ContractError(f"{what}: expected at most {MAX_ENVELOPE_BYTES} bytes, found {len(raw)}")
    with refusing(f"{what}: expected signatures, found"):
        detached = Detached.model_validate_json(raw)
    return _good(detached.signatures, pre_authentication(payload_type, content), keys, what)


def _signatures(payload_type: str, content: bytes, keys: Sequence[Ed25519PrivateKey]) -> tuple[Signature, ...]:
    text = pre_authentication(payload_type, content)
    return tuple(Signature(keyid=key_id(public_hex(k)), sig=base64.b64encode(k.sign(text)).decode()) for k in keys)


def _good(signatures: Sequence[Signature], text: bytes, keys: Mapping[str, str], what: str) -> frozenset[str]:
    found = set()
    for signature in signatures:
        public = keys.get(signature.keyid)
        if public is None:
            continue
        try:
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(_decoded(signature.sig), text)
        except (InvalidSignature, ValueError) as error:
            raise ContractError(f"{what}: the signature by key {signature.keyid[:12]} does not hold") from error
        found.add(signature.keyid)
    return frozenset(found)


def _decoded(text: str) -> bytes:
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ContractError("expected base64 in a signed statement, found something else") from error
    if base64.b64encode(content).decode() != text:  # unused bits: two texts would mean the same bytes
        raise ContractError("expected canonical base64 in a signed statement, found another form of it")
    return content
