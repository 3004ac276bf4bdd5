"""Of a history only what a key of the fleet has signed is believed, and what was in force stays known."""

from typing import Any

from acclimate.registry.releases.history import Entry, History, read_entries
from acclimate.registry.releases.release import InMode, Release, release_digest, sign_release
from acclimate.registry.releases.remark import Remark, sign_remark
from acclimate.registry.trust.envelope import Envelope
from acclimate.registry.trust.trust import read_trust
from tests.support.signed import FLEET, NOW_MS, approval, key, member, private, release, trust


def entries(*envelopes: Envelope) -> list[Entry]:
    return [
        Entry(offset=10 * number, at_ms=1000 * (number + 1), envelope=each) for number, each in enumerate(envelopes)
    ]


def read(*envelopes: Envelope, **believed: Any) -> History:
    return read_entries(entries(*envelopes), read_trust(trust(**believed)))


def signed(value: Release, by: str = "release") -> Envelope:
    return sign_release(value, private(by))


def chain(*steps: dict[str, Any], by: str = "release") -> list[Envelope]:
    """Sign releases that name each other."""
    found: list[Envelope] = []
    for epoch, changes in enumerate(steps, start=1):
        previous = release_digest(found[-1]) if found else None
        found.append(signed(release(epoch, previous=previous, **changes), by))
    return found


def test_what_a_stranger_signed_is_counted_and_passed_over():
    good = signed(release(1))
    history = read(good, signed(release(2), by="stranger"), approval("0" * 64, by="stranger"))
    assert [each.release.epoch for each in history.releases] == [1]
    assert (history.approvals, history.passed_over) == ((), 2)


def test_a_release_of_another_fleet_is_passed_over():
    assert read(signed(release(1, fleet="other"))).passed_over == 1


def test_a_release_sent_again_after_a_lost_answer_counts_once():
    first, second = chain({}, {})
    history = read(first, second, first)
    assert [each.release.epoch for each in history.releases] == [1, 2]
    assert history.newest is not None
    assert history.newest.release.epoch == 2


def test_what_a_revoked_key_has_signed_stays_known_if_a_believed_release_came_after_it():
    first, second = chain({}, {}, by="old")
    third = signed(release(3, previous=release_digest(second)))
    orphan = signed(release(9), by="old")
    history = read(first, second, third, orphan)
    assert [each.release.epoch for each in history.releases] == [1, 2, 3]
    assert history.passed_over == 1
    assert read(first, second).releases == ()


def test_who_had_what_at_a_time_is_the_newest_release_before_it():
    history = read(*chain({}, {}, {}))
    assert history.at(999) is None
    assert [at.release.epoch for at in map(history.at, (1000, 1999, 2000, 9999)) if at is not None] == [1, 1, 2, 3]


def test_an_approval_is_open_until_a_release_has_carried_it_out_and_a_replay_opens_nothing():
    wanted = member("source", 1)
    word = approval(wanted.digest)
    carried = signed(release(1, stable={"source": wanted}, approvals={wanted.digest: (word,)}))
    assert [each.approval.digest for each in read(word).open_approvals()] == [wanted.digest]
    assert read(word, carried).open_approvals() == ()
    assert read(word, carried, word).open_approvals() == ()
    later = approval(wanted.digest, at_ms=NOW_MS - 1)
    assert len(read(word, carried, later).open_approvals()) == 1


def test_an_approval_of_another_mode_stays_open_while_its_bundle_is_released_in_this_one():
    wanted = member("source", 1)
    word = approval(wanted.digest, mode="always")
    renewed = signed(release(1, stable={"source": wanted}, approvals={wanted.digest: (word,)}))
    assert len(read(word, renewed).open_approvals()) == 1
    assert read(word, signed(release(1, stable={"source": wanted}, stable_mode="always"))).open_approvals() == ()


def test_of_one_approver_the_newest_word_for_each_mode_goes_into_a_release():
    wanted = member("source", 1).digest
    words = [approval(wanted, mode=mode, reason=reason) for mode in ("observe", "always") for reason in ("old", "new")]
    assert set(read(*words).approvals_of(wanted)) == {words[1], words[3]}
    assert read(approval(wanted, mode="gated")).approvals_of(wanted) == ()


def test_of_one_approver_only_the_newest_approval_goes_into_a_release():
    wanted = member("source", 1).digest
    keys = (key("release"), key("approver", "ann"), key("approver", "bob"))
    words = [
        approval(wanted, by="ann", reason="first"),
        approval(wanted, by="bob"),
        approval(wanted, by="ann", reason="second"),
    ]
    found = read(*words, keys=keys).approvals_of(wanted)
    assert set(found) == {words[1], words[2]}


def test_what_all_devices_had_is_listed_without_repetition_the_newest_last():
    one, two = member("source", 1), member("source", 2)
    sets = [{"stable": {"source": each}} for each in (one, two, one)]
    assert read(*chain(*sets)).was_stable("source") == [InMode(two), InMode(one)]


def test_a_bundle_that_all_devices_had_in_two_modes_is_listed_in_both():
    source = {"source": member("source", 1)}
    modes = [{"stable": source, "stable_mode": mode} for mode in ("observe", "always", "observe")]
    history = read(*chain(*modes))
    assert [each.mode for each in history.was_stable("source")] == ["always", "observe"]
    assert history.mode == "observe"
    assert read(*chain(modes[1])).mode == "always"


def test_an_aborted_change_of_mode_is_known_by_its_mode():
    source = {"source": member("source", 1)}
    start = {"step": "start", "stable": source, "candidate": source, "candidate_mode": "always", "share": 0.5}
    history = read(*chain({"stable": source}, start, {"step": "abort", "stable": source}))
    assert history.aborted("source") == InMode(source["source"], "always")


def test_a_wave_began_with_its_first_release_not_with_its_renewal():
    one, two = {"source": member("source", 1)}, {"source": member("source", 2)}
    wave = {"stable": one, "candidate": two, "share": 0.5}
    history = read(
        *chain({"stable": one}, {"step": "start", **wave}, {"step": "wave", **wave}, {"step": "renew", **wave})
    )
    began, rollout = history.wave_began(), history.rollout_began()
    assert began is not None
    assert rollout is not None
    assert (began.release.epoch, rollout.release.epoch) == (3, 2)
    assert history.aborted("source") is None


def test_the_candidate_of_an_aborted_roll_out_is_known_until_something_else_is_begun():
    one, two = {"source": member("source", 1)}, {"source": member("source", 2)}
    start = {"step": "start", "stable": one, "candidate": two, "share": 0.5}
    abort = {"step": "abort", "stable": one}
    assert read(*chain({"stable": one}, start, abort)).aborted("source") == InMode(two["source"])
    assert read(*chain({"stable": one}, start, abort, {"step": "renew", "stable": one})).aborted("source") is not None
    assert read(*chain({"stable": one}, start, abort, {"stable": two})).aborted("source") is None


def test_a_report_counts_only_by_the_controllers_key():
    remark = Remark(fleet=FLEET, at_ms=NOW_MS, about="waits", message="no verdict")
    assert len(read(sign_remark(remark, private("release"))).remarks) == 1
    assert read(sign_remark(remark, private("approver"))).passed_over == 1


def test_an_approval_of_an_action_or_a_kind_that_only_newer_versions_know_is_kept_and_asks_for_nothing():
    usual, freeze, gate = (
        approval(member("source", number).digest, **changes)
        for number, changes in enumerate(({}, {"action": "freeze"}, {"kind": "gate"}), start=1)
    )
    history = read(usual, freeze, gate)
    assert history.passed_over == 0
    assert [each.approval.asked_kind for each in history.approvals] == ["source", None, None]
    assert [len(history.approvals_of(member("source", number).digest)) for number in (1, 2, 3)] == [1, 0, 0]
