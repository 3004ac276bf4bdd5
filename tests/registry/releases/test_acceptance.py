"""Which releases a receiver takes: S3 to S6 of the list of faults, each field by itself."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.registry.canonical import canonical_bytes
from acclimate.registry.releases.acceptance import Offer, Refused, Seen, consider
from acclimate.registry.releases.approval import approvers
from acclimate.registry.releases.release import RELEASE_TYPE, Release, parse_record, record_bytes, unit_hash
from acclimate.registry.trust.envelope import Envelope, sign
from acclimate.registry.trust.trust import read_trust
from tests.support.signed import DAY_MS, FLEET, NOW_MS, approval, digest, key, member, private, record, release, trust


def take(raw: bytes, seen: Seen | None = None, now_ms: int = NOW_MS) -> Offer:
    return consider(seen or Seen(trust()), raw, FLEET, now_ms)


def reason(raw: bytes, seen: Seen | None = None, now_ms: int = NOW_MS) -> str:
    with pytest.raises(Refused) as refused:
        take(raw, seen, now_ms)
    return refused.value.reason


def unchecked(changes: dict[str, Any], by: str = "release") -> bytes:
    """Sign values that contradict themselves, as whoever has the controller's key could."""
    values = json.loads(canonical_bytes(release(3))) | changes
    text = json.dumps(values, sort_keys=True, indent=1).encode() + b"\n"
    return record_bytes(trust(), sign(RELEASE_TYPE, text, [private(by)]))


def test_a_good_release_is_taken_again_and_again():
    offer = take(record(release(3)))
    assert (offer.release.epoch, offer.seen.epoch) == (3, 3)
    assert take(record(release(3)), offer.seen).seen == offer.seen


def test_a_kind_and_a_step_that_only_newer_versions_know_are_taken_and_shown():
    source = member("source")
    gate = member("gate", source=source.digest)
    offer = take(record(release(3, step="hold", stable={"source": source, "gate": gate})))
    assert offer.release.step == "hold"
    assert offer.release.stable["gate"].digest == gate.digest


def test_an_approval_that_may_be_a_word_against_its_bundle_is_no_word_for_it():
    source = member("source")
    wanted = approval(source.digest, action="withdraw")
    offered = record(release(3, stable={"source": source}, approvals={source.digest: (wanted,)}), trust(approvals=1))
    assert reason(offered, Seen(trust(approvals=1))) == "unapproved"


def test_fields_that_only_a_newer_controller_knows_are_passed_over_unless_it_says_that_they_must_be_understood():
    assert take(unchecked({"mood": "calm"})).release == release(3)
    with pytest.raises(Refused) as refused:
        take(unchecked({"mood": "calm", "must_understand": ["mood"]}))
    assert (refused.value.reason, refused.value.epoch) == ("contract", 3)


def test_what_must_be_understood_is_told_with_its_epoch_only_where_a_believed_key_stands_behind_it():
    must = {"mood": "calm", "must_understand": ["mood"]}
    with pytest.raises(Refused) as refused:
        take(unchecked(must, by="stranger"))
    assert (refused.value.reason, refused.value.epoch) == ("key", 0)
    assert reason(unchecked(must), take(record(release(4))).seen) == "rollback"


SETS = {"stable": {"source": member("source", 1)}, "candidate": {"source": member("source", 2)}, "share": 0.5}


class TestModes:
    @pytest.mark.parametrize("field", ["stable_mode", "candidate_mode"])
    @pytest.mark.parametrize("mode", ["gated", "by the moon"])
    def test_one_that_this_version_does_not_serve_is_refused_with_the_epoch_of_its_release(self, field: str, mode: str):
        with pytest.raises(
            Refused, match=f"expected mode observe or always, found '{mode}'; update acclimate"
        ) as refused:
            take(record(release(3, **SETS, **{field: mode})))
        assert (refused.value.reason, refused.value.epoch) == ("mode", 3)

    def test_each_set_has_its_own_and_a_device_gets_both_bundle_and_mode_of_one_set(self):
        offer = take(record(release(3, **SETS, candidate_mode="always", salt="ab" * 8)))
        modes = {
            (offer.release.chosen(device)["source"].version, offer.release.chosen_mode(device))
            for device in (f"pump-{number}" for number in range(50))
        }
        assert modes == {(1, "observe"), (2, "always")}

    def test_one_of_a_candidate_set_that_is_not_there_is_a_contradiction(self):
        assert reason(unchecked({"candidate_mode": "always"})) == "malformed"

    def test_a_release_that_uses_none_says_nothing_of_modes(self):
        assert b"mode" not in canonical_bytes(release(3, **SETS))

    def test_a_stolen_release_key_alone_turns_no_adaptation_on(self):
        source = member("source")
        observed, adapted = approval(source.digest), approval(source.digest, mode="always")
        for mode, words, expected in (
            ("observe", (observed,), "taken"), ("observe", (adapted,), "taken"), ("always", (adapted,), "taken"),
            ("always", (observed,), "unapproved"), ("always", (), "unapproved"),
            ("observe", (approval(source.digest, mode="by the moon"),), "unapproved"),
            ("observe", (approval(source.digest, mode="gated"),), "unapproved"),
            ("always", (adapted, approval(source.digest, mode="by the moon")), "taken"),
        ):  # fmt: skip
            offered = release(3, stable={"source": source}, stable_mode=mode, approvals={source.digest: words})
            raw, seen = record(offered, trust(approvals=1)), Seen(trust(approvals=1))
            if expected == "taken":
                assert take(raw, seen).release.stable_mode == mode
            else:
                assert reason(raw, seen) == expected

    def test_the_candidate_set_needs_the_word_for_its_mode_though_the_bundle_is_that_of_the_stable_set(self):
        source = {"source": member("source")}
        word, believed = approval(source["source"].digest), trust(approvals=1)
        offered = release(
            3, stable=source, candidate=source, candidate_mode="always", share=0.5,
            approvals={source["source"].digest: (word,)},
        )  # fmt: skip
        assert reason(record(offered, believed), Seen(believed)) == "unapproved"

    def test_a_generator_in_a_set_that_adapts_needs_the_approval_of_its_bundle_alone(self):
        source = member("source")
        generator, believed = member("mgg", source=source.digest), trust(approvals=1)
        words = {
            source.digest: (approval(source.digest, mode="always"),),
            generator.digest: (approval(generator.digest, kind="mgg"),),
        }
        offered = release(3, stable={"source": source, "mgg": generator}, stable_mode="always", approvals=words)
        assert take(record(offered, believed), Seen(believed)).release.epoch == 3


class TestSignatures:
    """S3."""

    def test_one_that_is_missing(self):
        whole = json.loads(record(release()))
        whole["release"]["signatures"] = []
        assert reason(json.dumps(whole).encode()) == "malformed"

    @pytest.mark.parametrize("by", ["stranger", "root", "gate", "approver", "agent"])
    def test_one_by_a_key_that_may_not_sign_releases(self, by: str):
        assert reason(record(release(), signed_by=by)) == "key"

    def test_one_by_a_revoked_key(self):
        revoked = trust(2, keys=(key("release", "fresh"),), revoked=(key("release").key_id,))
        assert reason(record(release(), revoked)) == "key"
        assert reason(record(release(), trust(1)), Seen(revoked)) == "trust"  # shown the older list
        assert take(record(release(), revoked, signed_by="fresh")).seen.trust == revoked

    def test_one_whose_release_was_changed_afterwards(self):
        signed = parse_record(record(release(3)))
        for changed in (release(4), release(3, expires_ms=NOW_MS + 300 * DAY_MS), release(3, salt="1" * 16)):
            forged = sign(RELEASE_TYPE, canonical_bytes(changed), [private("stranger")])
            swapped = forged.model_copy(update={"signatures": signed.release.signatures})
            assert reason(record_bytes(trust(), swapped)) == "signature"

    def test_one_whose_fields_were_put_in_another_order(self):
        values = json.loads(canonical_bytes(release(3)))
        text = json.dumps(dict(reversed(values.items())), indent=1).encode() + b"\n"
        assert reason(record_bytes(trust(), sign(RELEASE_TYPE, text, [private("release")]))) == "malformed"

    def test_one_of_another_release_and_one_of_another_kind_of_statement(self):
        other = parse_record(record(release(4))).release
        mixed = parse_record(record(release(3))).release.model_copy(update={"signatures": other.signatures})
        assert reason(record_bytes(trust(), mixed)) == "signature"
        approved = sign("application/vnd.acclimate.approval+json", canonical_bytes(release()), [private("release")])
        assert reason(record_bytes(trust(), approved)) == "signature"

    def test_a_rotation_believes_both_keys_in_its_window_and_not_a_millisecond_longer(self):
        end = NOW_MS + 1000
        rotated = trust(2, keys=(key("release", until_ms=end), key("release", "fresh", from_ms=NOW_MS)))
        late = NOW_MS + 5000
        for by, at, expected in (
            ("release", NOW_MS, "taken"), ("release", end, "taken"), ("release", end + 1, "key"),
            ("fresh", NOW_MS - 1, "key"), ("fresh", NOW_MS, "taken"), ("fresh", end + 1, "taken"),
        ):  # fmt: skip
            raw = record(release(3, issued_ms=at), rotated, signed_by=by)
            if expected == "taken":
                assert take(raw, now_ms=late).release.epoch == 3
            else:
                assert reason(raw, now_ms=late) == expected


class TestRollback:
    """S4: ten epochs, each replayed, each field by itself."""

    def test_no_earlier_release_is_ever_taken_again(self):
        history = [record(release(epoch)) for epoch in range(1, 11)]
        seen = Seen(trust())
        for number, raw in enumerate(history):
            seen = take(raw, seen).seen
            assert [reason(old, seen) for old in history[:number]] == ["rollback"] * number

    @pytest.mark.parametrize("epoch", range(1, 11))
    def test_each_field_of_an_earlier_one_in_a_later_one_is_refused(self, epoch: int):
        now = take(record(release(11))).seen
        old, new = parse_record(record(release(epoch))), parse_record(record(release(12)))
        values = json.loads(new.release.content())
        for field in ("epoch", "expires_ms", "stable", "artifacts"):
            mixed = values | {field: json.loads(old.release.content())[field], "salt": "f" * 16}
            text = json.dumps(mixed, sort_keys=True, indent=1).encode() + b"\n"
            for signatures in (old.release.signatures, new.release.signatures):
                forged = sign(RELEASE_TYPE, text, [private("stranger")]).model_copy(update={"signatures": signatures})
                assert reason(record_bytes(trust(), forged), now) in ("signature", "malformed")

    def test_two_releases_of_one_epoch_leave_the_first(self):
        seen = take(record(release(5))).seen
        assert reason(record(release(5, salt="1" * 16)), seen) == "fork"

    def test_an_older_list_of_keys_is_refused_and_a_newer_one_stays(self):
        seen = take(record(release(5), trust(2))).seen
        assert reason(record(release(6), trust(1)), seen) == "trust"
        assert (
            reason(record(release(6), trust(3, signed_by=("root", "x"), root=("root", "x"))), Seen(trust(4))) == "trust"
        )


class TestFreshness:
    """S5 and T4: what a clock may decide."""

    def test_an_expired_release_is_not_newly_installed_and_what_runs_goes_on(self):
        raw = record(release(3, expires_ms=NOW_MS))
        assert reason(raw, now_ms=NOW_MS + 1) == "expired"
        seen = take(raw, now_ms=NOW_MS).seen
        assert take(raw, seen, NOW_MS + 400 * DAY_MS).seen == seen

    @pytest.mark.parametrize(("skew_ms", "expected"), [(-DAY_MS, "taken"), (0, "taken"), (DAY_MS, "expired")])
    def test_a_wrong_clock_delays_but_never_harms(self, skew_ms: int, expected: str):
        raw = record(release(3, expires_ms=NOW_MS + DAY_MS // 2))
        if expected == "taken":
            assert take(raw, now_ms=NOW_MS + skew_ms).release.epoch == 3
        else:
            assert reason(raw, now_ms=NOW_MS + skew_ms) == "expired"

    def test_a_refusal_leaves_what_is_remembered(self):
        seen = take(record(release(5))).seen
        for raw in (b"noise", record(release(4)), record(release(6, expires_ms=0, issued_ms=0))):
            reason(raw, seen)
        assert take(record(release(6)), seen).seen.epoch == 6


class TestSets:
    """S6 and the threshold of approvals."""

    def test_a_generator_of_another_source_is_no_release(self):
        source = member("source")
        fits = {"source": source, "mgg": member("mgg", source=source.digest)}
        assert take(record(release(stable=fits))).release.stable["mgg"].version == 1
        for wrong in (
            {"source": source, "mgg": member("mgg", source=digest("another"))},
            {"mgg": member("mgg", source=source.digest)},
            {"source": member("source", source=digest("x"))},
            {"source": source, "mgg": member("mgg", source=source.digest).model_copy(
                update={"network_sha256": digest("another network")})},
        ):  # fmt: skip
            with pytest.raises(ValueError, match="stable"):
                release(stable=wrong)

    def test_a_set_that_does_not_fit_is_refused_whoever_signs_it(self):
        stable = {
            "source": member("source").model_dump(mode="json"),
            "mgg": member("mgg", source=digest("another")).model_dump(mode="json"),
        }
        assert reason(unchecked({"stable": stable})) == "malformed"
        assert reason(unchecked({"artifacts": {}})) == "malformed"
        assert reason(unchecked({"share": 0.5})) == "malformed"

    @pytest.mark.parametrize("name", ["../x.json", "/etc/passwd", "a/b.json", ".x.json", "x.pkl", "X.json", "x.json\n"])
    def test_a_file_name_that_could_leave_its_folder_is_refused(self, name: str):
        files = member("source").files | {name: digest("x")}
        stable = {"source": member("source").model_dump(mode="json") | {"files": files}}
        assert reason(unchecked({"stable": stable})) == "malformed"

    def test_a_release_of_another_fleet_is_refused(self):
        assert reason(record(release(fleet="elsewhere"))) == "fleet"

    def test_newer_code_is_waited_for(self):
        assert reason(record(release(code_contract_version=10_000))) == "contract"

    def test_each_bundle_needs_as_many_approvers_as_the_root_says(self):
        two = (key("release"), key("approver", "ann"), key("approver", "bob"))
        first, second = member("source", 1), member("source", 2)
        ann, bob = (approval(first.digest, by) for by in ("ann", "bob"))
        for needed, given_, expected in (
            (1, (ann,), "taken"), (2, (ann, bob), "taken"), (2, (ann,), "unapproved"), (2, (ann, ann), "unapproved"),
            (1, (), "unapproved"), (1, (approval(second.digest, "ann"),), "unapproved"),
            (1, (approval(first.digest, "release"),), "unapproved"),
            (1, (approval(first.digest, "ann", fleet="elsewhere"),), "unapproved"),
        ):  # fmt: skip
            raw = record(
                release(stable={"source": first}, approvals={first.digest: given_}), trust(keys=two, approvals=needed)
            )
            if expected == "taken":
                assert take(raw, Seen(trust(keys=two, approvals=needed))).release.epoch == 1
            else:
                assert reason(raw, Seen(trust(keys=two, approvals=needed))) == expected

    def test_the_candidate_needs_approval_as_well(self):
        believed = trust(approvals=1)
        stable, new = member("source", 1), member("source", 2)
        raw = record(
            release(
                stable={"source": stable}, candidate={"source": new}, share=0.1,
                approvals={stable.digest: (approval(stable.digest),)},
            ),
            believed,
        )  # fmt: skip
        assert reason(raw, Seen(believed)) == "unapproved"
        assert len(approvers((approval(new.digest),), new.digest, read_trust(believed), "observe")) == 1


class TestShares:
    def test_a_wave_takes_its_share_of_devices_and_a_larger_one_keeps_them(self):
        devices = [f"pump-{i}" for i in range(4000)]
        stable, new = {"source": member("source", 1)}, {"source": member("source", 2)}

        def on_candidate(share: float) -> set[str]:
            of: Release = release(stable=stable, candidate=new, share=share, salt="ab" * 8)
            return {device for device in devices if of.chosen(device) == new}

        tenth, half = on_candidate(0.1), on_candidate(0.5)
        assert abs(len(tenth) - 400) < 4 * 19  # four standard deviations of a binomial
        assert abs(len(half) - 2000) < 4 * 32
        assert tenth < half
        assert on_candidate(0.0) == set()
        assert on_candidate(1.0) == set(devices)

    def test_the_hash_is_the_one_that_other_languages_can_compute(self):
        import hashlib

        top = hashlib.sha256(b"ab/pump-7").hexdigest()[:16]
        assert unit_hash("ab", "pump-7") == int(top, 16) // 2**11 / 2**53


@given(st.binary(max_size=200) | st.sampled_from([b"{}", b'{"trust":1}', b"[]", b'{"release":{}}']))
def test_noise_is_refused_and_nothing_else_is_raised(raw: bytes):
    assert reason(raw) == "malformed"


@given(st.integers(0, 10**6))
def test_no_flipped_bit_of_a_record_is_taken(place: int):
    raw = bytearray(record(release(3)))
    raw[place % len(raw)] ^= 1 << place % 8
    try:
        offer = take(bytes(raw))
    except Refused:
        return
    # A flipped bit may fall on white space or on the id of a signature that is not needed; what it says is unchanged.
    assert isinstance(offer.envelope, Envelope)
    assert offer.release == release(3)
