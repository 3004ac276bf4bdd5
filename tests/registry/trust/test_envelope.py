"""Signed statements: what is not signed by the right key over these exact bytes is nothing."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from acclimate.adaptation.errors import ContractError
from acclimate.registry.trust.envelope import (
    Envelope,
    detached_signers,
    key_id,
    parse_envelope,
    public_hex,
    sign,
    sign_detached,
    signers,
)
from tests.support.signed import private

KIND = "application/vnd.acclimate.test+json"
KEYS = {key_id(public_hex(private(name))): public_hex(private(name)) for name in ("a", "b")}
A, B = (key_id(public_hex(private(name))) for name in ("a", "b"))


def test_a_signature_is_the_one_of_the_standard():
    # RFC 8032, section 7.1, test 3: secret key, message af82 and signature
    secret = "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7"
    expected = (
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
    )
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))
    assert public_hex(key) == "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025"
    assert key.sign(bytes.fromhex("af82")).hex() == expected


def test_every_signature_that_holds_counts_once_and_strangers_do_not():
    twice = sign(KIND, b"x", [private("a"), private("a"), private("stranger")])
    assert signers(twice, KIND, KEYS, "it") == {A}
    assert signers(sign(KIND, b"x", [private("a"), private("b")]), KIND, KEYS, "it") == {A, B}
    assert signers(sign(KIND, b"x", [private("stranger")]), KIND, KEYS, "it") == frozenset()


def test_a_statement_of_another_type_is_refused_even_if_the_type_is_rewritten():
    envelope = sign("application/vnd.acclimate.other+json", b"x", [private("a")])
    with pytest.raises(ContractError, match="type"):
        signers(envelope, KIND, KEYS, "it")
    renamed = envelope.model_copy(update={"payloadType": KIND})
    with pytest.raises(ContractError, match="does not hold"):
        signers(renamed, KIND, KEYS, "it")


@given(st.binary(min_size=1, max_size=200), st.data())
def test_no_changed_bit_of_statement_or_signature_is_taken(payload: bytes, data: st.DataObject):
    envelope = sign(KIND, payload, [private("a")])
    bit = data.draw(st.integers(0, 8 * len(payload) - 1))
    changed = bytearray(payload)
    changed[bit // 8] ^= 1 << bit % 8
    forged = envelope.model_copy(update={"payload": base64.b64encode(changed).decode()})
    with pytest.raises(ContractError):
        signers(forged, KIND, KEYS, "it")
    place = data.draw(st.integers(0, 87))
    text = envelope.signatures[0].sig
    other = data.draw(st.sampled_from("ABCxyz019+/=").filter(lambda letter: letter != text[place]))
    signature = envelope.signatures[0].model_copy(update={"sig": text[:place] + other + text[place + 1 :]})
    with pytest.raises(ContractError):
        signers(envelope.model_copy(update={"signatures": (signature,)}), KIND, KEYS, "it")


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_noise_is_refused_and_nothing_else_is_raised(raw: bytes):
    with pytest.raises(ContractError):
        parse_envelope(raw, "it")


def test_an_envelope_survives_its_text_and_a_large_one_is_not_parsed():
    envelope = sign(KIND, b"x" * 1000, [private("a")])
    raw = envelope.model_dump_json().encode()
    assert parse_envelope(raw, "it") == envelope
    assert isinstance(envelope, Envelope)
    with pytest.raises(ContractError, match="at most"):
        parse_envelope(raw + b" " * 512 * 1024, "it")


def test_a_signature_beside_a_file_is_of_that_file():
    raw = sign_detached(KIND, b"file", [private("a")])
    assert detached_signers(raw, KIND, b"file", KEYS, "it") == {A}
    for content, kind in ((b"other", KIND), (b"file", KIND + "x")):
        with pytest.raises(ContractError, match="does not hold"):
            detached_signers(raw, kind, content, KEYS, "it")
    with pytest.raises(ContractError, match="expected signatures"):
        detached_signers(b"{}", KIND, b"file", KEYS, "it")
