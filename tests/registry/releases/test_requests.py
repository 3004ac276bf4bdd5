"""Whether a version may be released, for the case that its bundle is known and its mode is not."""

import pytest

from acclimate.registry.bundles.member import Member
from acclimate.registry.releases.history import Entry, History, read_entries
from acclimate.registry.releases.next_release import Request
from acclimate.registry.releases.release import InMode, Release, sign_release
from acclimate.registry.releases.requests import Held, judge
from acclimate.registry.trust.trust import read_trust
from tests.support.signed import NOW_MS, approval, member, private, release, trust

ONE, TWO = member("source", 1), member("source", 2)


def history(*releases: Release, approved: tuple[str, ...] = ()) -> History:
    envelopes = [sign_release(each, private("release")) for each in releases]
    envelopes += [approval(ONE.digest, mode=mode) for mode in approved]
    return read_entries([Entry(n, NOW_MS + n, each) for n, each in enumerate(envelopes)], read_trust(trust()))


def answer(of: History, mode: str, wanted: Member = ONE, approvals: int = 0) -> Request | Held:
    return judge(of, read_trust(trust(approvals=approvals)), "source", InMode(wanted, mode), "ann", "why")


def test_another_mode_of_the_bundle_in_force_needs_no_second_verdict_and_goes_through_waves():
    found = answer(history(release(1, stable={"source": ONE})), "always")
    assert isinstance(found, Request)
    assert (found.mode, found.back) == ("always", False)


def test_a_bundle_that_no_gate_has_judged_is_held_in_every_mode():
    found = answer(history(release(1, stable={"source": ONE})), "always", TWO)
    assert isinstance(found, Held)
    assert "no verdict" in found.message


def test_a_return_to_a_mode_that_all_devices_had_interrupts_a_roll_out_and_another_mode_waits_for_its_end():
    old = release(1, stable={"source": ONE}, stable_mode="always")
    wave = release(2, stable={"source": ONE}, candidate={"source": TWO}, share=0.5)
    back = answer(history(old, wave), "always")
    assert isinstance(back, Request)
    assert (back.mode, back.back) == ("always", True)
    held = answer(history(release(1, stable={"source": ONE}), wave), "always")
    assert isinstance(held, Held)
    assert "end of the roll-out" in held.message


def test_a_mode_that_this_version_does_not_serve_is_refused_and_told():
    for mode in ("gated", "by the moon"):
        found = answer(history(release(1, stable={"source": ONE})), mode)
        assert isinstance(found, Held)
        assert found.about == "refused"
        assert f"expected mode observe or always, found '{mode}'" in found.message


@pytest.mark.parametrize(
    ("mode", "approved", "expected"),
    [("always", ("observe",), Held), ("always", ("always",), Request), ("observe", ("always",), Request)],
)
def test_an_approval_counts_for_its_mode_and_for_observe(
    mode: str, approved: tuple[str, ...], expected: type[Request | Held]
):
    before = release(1, stable={"source": ONE}, stable_mode="observe" if mode == "always" else "always")
    assert isinstance(answer(history(before, approved=approved), mode, approvals=1), expected)
