"""Whom a fleet believes: only forward, only by a root that was believed before."""

import pytest

from acclimate.adaptation.errors import ContractError
from acclimate.registry.trust.envelope import key_id
from acclimate.registry.trust.trust import ROLES, Trust, newer_trust, read_trust
from tests.support.signed import NOW_MS, key, private, trust


def test_the_first_statement_needs_its_own_root_and_nothing_else():
    assert read_trust(trust()).version == 1
    assert read_trust(trust().model_dump_json().encode()).fleet == "plant"
    with pytest.raises(ContractError, match="root"):
        read_trust(trust(signed_by=("release",)))


def test_a_newer_statement_needs_a_root_of_the_one_before():
    known = trust(1)
    assert newer_trust(known, trust(2)) == trust(2)
    assert newer_trust(known, known) == known
    usurper = trust(2, root=("usurper",), signed_by=("usurper",))
    with pytest.raises(ContractError, match="not signed by a root key of version 1"):
        newer_trust(known, usurper)


def test_an_old_statement_and_another_one_of_the_same_version_are_refused():
    for offered in (trust(1), trust(2, keys=(key("release", "another"),)), trust(3, fleet="elsewhere")):
        with pytest.raises(ContractError):
            newer_trust(trust(2), offered)


def test_the_root_itself_is_replaced_over_versions_even_for_who_missed_one():
    both = trust(2, root=("root", "new"))
    after = trust(3, root=("new",), signed_by=("new", "root"))
    assert newer_trust(newer_trust(trust(1), both), after) == after
    assert newer_trust(trust(1), after) == after
    with pytest.raises(ContractError):
        newer_trust(after, trust(4, root=("root",)))


def test_a_revoked_key_never_comes_back():
    lost = key("release")
    revoked = trust(2, keys=(key("release", "fresh"),), revoked=(lost.key_id,))
    with pytest.raises(ContractError, match="stays revoked"):
        newer_trust(revoked, trust(3))
    with pytest.raises(ValueError, match="revoked key is listed"):
        trust(3, keys=(lost,), revoked=(lost.key_id,))


def test_one_key_has_one_role():
    with pytest.raises(ValueError, match="listed twice"):
        trust(keys=(key("release", "x"), key("approver", "x")))
    with pytest.raises(ValueError, match="listed twice"):
        trust(keys=(key("release", "root"),))


def test_a_key_counts_from_the_first_to_the_last_millisecond_of_its_window():
    believed: Trust = read_trust(trust(keys=(key("gate", from_ms=100, until_ms=200), key("gate", "open", from_ms=150))))
    gate, opened = (entry.key_id for entry in believed.keys)
    expected = {99: set(), 100: {gate}, 149: {gate}, 150: {gate, opened}, 200: {gate, opened}, 201: {opened}}
    assert {at: set(believed.keys_of("gate", at)) for at in expected} == expected
    assert not believed.keys_of("release", 150)


def test_the_id_of_a_key_is_the_digest_of_its_bytes():
    import hashlib

    raw = private("gate").public_key().public_bytes_raw()
    assert key("gate").key_id == key_id(raw.hex()) == hashlib.sha256(raw).hexdigest()


def test_a_key_of_a_role_that_only_newer_versions_know_is_listed_and_signs_nothing_here():
    auditor = key("release", "auditor").model_copy(update={"role": "auditor"})
    believed = read_trust(trust(keys=(key("release"), auditor)))
    assert [each.role for each in believed.keys] == ["release", "auditor"]
    for role in ROLES:
        assert auditor.key_id not in believed.keys_of(role, NOW_MS)
