"""The next release says what changes and nothing else does; a generator goes only with its source."""

from dataclasses import replace

import pytest

from acclimate.adaptation.errors import ContractError
from acclimate.registry.releases.history import Entry, History, read_entries
from acclimate.registry.releases.mode import Mode
from acclimate.registry.releases.next_release import Request, aborted, begun, finished, renewed, set_with, widened
from acclimate.registry.releases.release import Place, Release, sign_release
from acclimate.registry.releases.rollout import RolloutPolicy
from acclimate.registry.trust.trust import read_trust
from tests.support.signed import DAY_MS, FLEET, NOW_MS, approval, member, private, release, trust

OLD, NEW = member("source", 1), member("source", 2)
GENERATOR = member("mgg", 1, source=OLD.digest)
POLICY = RolloutPolicy(waves=(0.1, 1.0), lifetime_days=10.0)
PLACES = {sha: Place(size_bytes=7, offsets=(70,)) for sha in (*NEW.files.values(), *GENERATOR.files.values())}
SALT = "ab" * 8


def history(*releases: Release, **believed: int) -> History:
    entries = [Entry(n, NOW_MS + n, sign_release(each, private("release"))) for n, each in enumerate(releases)]
    entries.append(Entry(99, NOW_MS + 99, approval(NEW.digest)))
    return read_entries(entries, read_trust(trust(**believed)))


def request(of: str = "source", back: bool = False, mode: Mode = "observe") -> Request:
    kind, wanted = ("mgg", GENERATOR) if of == "mgg" else ("source", NEW)
    return Request(kind, wanted, mode, back, "ann", ("bob",), "why")


def test_the_first_release_of_a_fleet_and_a_return_reach_all_devices_at_once():
    first = begun(FLEET, history(), request(), PLACES, POLICY, SALT, NOW_MS)
    assert (first.epoch, first.step, first.stable, first.candidate) == (1, "complete", {"source": NEW}, {})
    back = begun(FLEET, history(release(1, stable={"source": OLD})), request(back=True), PLACES, POLICY, SALT, NOW_MS)
    assert (back.epoch, back.step, back.stable, back.candidate) == (2, "rollback", {"source": NEW}, {})


def test_a_roll_out_goes_through_its_waves_with_one_salt_and_ends_with_the_candidate_in_force():
    before = history(release(1, stable={"source": OLD}))
    start = begun(FLEET, before, request(), PLACES, POLICY, SALT, NOW_MS)
    assert (start.step, start.share, start.salt) == ("start", 0.1, SALT)
    assert (start.stable, start.candidate) == ({"source": OLD}, {"source": NEW})
    assert (start.asked_by, start.approved_by, start.reason) == ("ann", ("bob",), "why")
    assert start.approvals == {NEW.digest: (approval(NEW.digest),)}
    assert start.expires_ms == NOW_MS + 10 * DAY_MS
    running = history(release(1, stable={"source": OLD}), start)
    wave = widened(running, 1.0, "all well", POLICY, NOW_MS + 5)
    assert (wave.epoch, wave.step, wave.share, wave.salt, wave.candidate) == (3, "wave", 1.0, SALT, {"source": NEW})
    assert (wave.asked_by, wave.approved_by, wave.reason) == ("ann", ("bob",), "all well")
    done = finished(running, "all well", POLICY, NOW_MS + 5)
    assert (done.step, done.share, done.stable, done.candidate) == ("complete", 0.0, {"source": NEW}, {})
    assert set(done.artifacts) == set(NEW.files.values())
    gone = aborted(running, "two of twenty", POLICY, NOW_MS + 5)
    assert (gone.step, gone.share, gone.stable, gone.candidate) == ("abort", 0.0, {"source": OLD}, {})


def test_each_release_names_the_one_before_it():
    running = history(release(1, stable={"source": OLD}))
    again = renewed(running, "half of its life", POLICY, NOW_MS + 5)
    assert running.newest is not None
    assert (again.previous, again.epoch, again.stable) == (running.newest.digest, 2, {"source": OLD})


def test_a_new_source_takes_away_what_was_made_for_the_old_one():
    assert set_with({"source": OLD, "mgg": GENERATOR}, "source", NEW) == {"source": NEW}
    assert set_with({"source": OLD}, "mgg", GENERATOR) == {"source": OLD, "mgg": GENERATOR}


@pytest.mark.parametrize("stable", [{}, {"source": NEW}])
def test_a_generator_without_its_source_is_refused_and_told_what_to_do(stable: dict[str, object]):
    with pytest.raises(ContractError, match="promote that source first"):
        set_with(stable, "mgg", GENERATOR)  # type: ignore[arg-type]


def test_a_mode_goes_with_its_set_from_the_start_to_the_end():
    before = history(release(1, stable={"source": OLD}))
    start = begun(FLEET, before, request(mode="always"), PLACES, POLICY, SALT, NOW_MS)
    assert (start.stable_mode, start.candidate_mode) == ("observe", "always")
    running = history(release(1, stable={"source": OLD}), start)
    for same in (
        widened(running, 1.0, "all well", POLICY, NOW_MS + 5),
        renewed(running, "half of its life", POLICY, NOW_MS + 5),
    ):
        assert (same.stable_mode, same.candidate_mode) == ("observe", "always")
    done = finished(running, "all well", POLICY, NOW_MS + 5)
    gone = aborted(running, "two of twenty", POLICY, NOW_MS + 5)
    assert (done.stable_mode, done.candidate_mode) == ("always", "observe")
    assert (gone.stable_mode, gone.candidate_mode) == ("observe", "observe")


def test_another_mode_of_the_version_in_force_takes_the_same_bundles_along():
    generator = member("mgg", 1, source=NEW.digest)
    both = {"source": NEW, "mgg": generator}
    before = history(release(1, stable=both))
    start = begun(FLEET, before, request(mode="always"), PLACES, POLICY, SALT, NOW_MS)
    assert (start.step, start.stable, start.candidate) == ("start", both, both)


def test_a_generator_joins_the_set_in_the_mode_in_force():
    before = history(release(1, stable={"source": OLD}, stable_mode="always"))
    start = begun(FLEET, before, request("mgg"), PLACES, POLICY, SALT, NOW_MS)
    assert (start.stable_mode, start.candidate_mode) == ("always", "always")


def test_a_return_sets_the_mode_of_all_devices_at_once():
    before = history(release(1, stable={"source": NEW}, stable_mode="always"))
    back = begun(FLEET, before, request(back=True), PLACES, POLICY, SALT, NOW_MS)
    assert (back.step, back.stable, back.stable_mode) == ("rollback", {"source": NEW}, "observe")


@pytest.mark.parametrize(("old", "new", "expected"), [(1, 1, 1), (2, 1, 2), (1, 3, 3)])
def test_a_release_asks_for_the_highest_contract_that_its_bundles_need_whatever_the_code_has(
    old: int, new: int, expected: int
):
    before = history(release(1, stable={"source": OLD.model_copy(update={"code_contract_version": old})}))
    wanted = replace(request(), member=NEW.model_copy(update={"code_contract_version": new}))
    start = begun(FLEET, before, wanted, PLACES, POLICY, SALT, NOW_MS)
    assert start.code_contract_version == expected
    assert renewed(before, "half of its life", POLICY, NOW_MS).code_contract_version == old
