"""Statements grow: what one version adds, an older one reads, unless the signer says that it must not."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from acclimate.adaptation.errors import ContractError
from acclimate.registry.canonical import (
    Extensible,
    Signed,
    Strict,
    added,
    canonical_bytes,
    parse_canonical,
    read_canonical,
)


class Part(Extensible):
    size: int


class NewPart(Part):
    unit: str = added("byte")


class Old(Signed):
    number: int
    part: Part
    share: float = 0.0


class New(Old):
    part: NewPart
    mode: str = added("observe")


OLD = Old(number=3, part=Part(size=1))


def text(values: dict[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True, indent=1).encode() + b"\n"


def test_a_field_added_later_is_left_out_at_its_default_and_all_others_are_not():
    new = New(number=3, part=NewPart(size=1))
    assert canonical_bytes(new) == canonical_bytes(OLD) == text({"number": 3, "part": {"size": 1}, "share": 0.0})
    assert b"always" in canonical_bytes(New(number=3, part=NewPart(size=1), mode="always"))


def test_a_newer_version_reads_what_an_older_one_wrote_and_the_other_way_round():
    assert parse_canonical(New, canonical_bytes(OLD), "it").mode == "observe"
    newer = canonical_bytes(New(number=3, part=NewPart(size=1, unit="window"), mode="always"))
    model, values = read_canonical(Old, newer, "it")
    assert model == OLD
    assert (values["mode"], values["part"]["unit"]) == ("always", "window")


def test_a_text_without_a_default_is_read_as_well():
    assert parse_canonical(Old, text({"number": 3, "part": {"size": 1}}), "it") == OLD


def test_a_field_that_must_be_understood_refuses_who_does_not_know_it():
    newer = canonical_bytes(New(number=3, part=NewPart(size=1), mode="always", must_understand=("mode",)))
    assert parse_canonical(New, newer, "it").mode == "always"
    with pytest.raises(ContractError, match=r"it: made for versions that understand mode, .* update acclimate"):
        parse_canonical(Old, newer, "it")


@pytest.mark.parametrize(
    "other",
    [
        canonical_bytes(OLD) + b"\n",
        json.dumps(OLD.model_dump()).encode(),
        canonical_bytes(OLD).replace(b"{", b'{\n "number": 3,', 1),
        canonical_bytes(OLD).replace(b"0.0", b"0.00"),
        text({**OLD.model_dump(), "later": float("nan")}),
    ],
    ids=["a line more", "other spacing", "a key twice", "another way to write a number", "no number"],
)
def test_another_form_of_the_same_values_is_refused(other: bytes):
    with pytest.raises(ContractError, match="expected canonical JSON"):
        parse_canonical(Old, other, "it")


def test_what_people_write_must_have_no_unknown_field():
    class Rules(Strict):
        limit: int = 1

    with pytest.raises(ValidationError):
        Rules.model_validate({"limt": 2})
