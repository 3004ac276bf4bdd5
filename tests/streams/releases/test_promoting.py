"""What becomes of a request, and what a return goes back to, where two sets differ in their mode alone."""

from collections.abc import Callable

import pytest

from acclimate.infra.settings import Settings
from acclimate.registry.releases.history import Entry, History, read_entries
from acclimate.registry.releases.release import InMode, Release, sign_release
from acclimate.registry.trust.trust import read_trust
from acclimate.streams.releases import promoting
from acclimate.streams.releases.promoting import Asked, Progress, before, watch
from tests.support.fleet_topics import NOWHERE
from tests.support.signed import NOW_MS, member, private, release, trust

ONE = member("source", 1)
FIRST = release(1, stable={"source": ONE})
START = release(2, step="start", stable={"source": ONE}, candidate={"source": ONE}, candidate_mode="always", share=0.5)
ABORT = release(3, step="abort", stable={"source": ONE})
DONE = release(3, step="complete", stable={"source": ONE}, stable_mode="always")


def history(*releases: Release) -> History:
    entries = [Entry(n, NOW_MS + n, sign_release(each, private("release"))) for n, each in enumerate(releases)]
    return read_entries(entries, read_trust(trust()))


def test_a_return_during_a_change_of_mode_goes_back_to_the_mode_of_the_stable_set():
    assert before(history(FIRST, START), "source") == InMode(ONE, "observe")


def test_a_return_after_a_change_of_mode_goes_back_to_the_mode_before_it():
    assert before(history(FIRST, START, DONE), "source") == InMode(ONE, "observe")
    again = release(4, step="rollback", stable={"source": ONE})
    assert before(history(FIRST, START, DONE, again), "source") == InMode(ONE, "always")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Callable[[Asked, History, History], Progress]:
    """Return what `watch` says first of a request that was made at one history and looked at in another."""

    def look(asked: Asked, then: History, now: History) -> Progress:
        class Reader:
            def __init__(self, settings: Settings) -> None:
                pass

            def read(self, believed: object) -> History:
                return now

            def close(self) -> None:
                pass

        monkeypatch.setattr(promoting, "HistoryReader", Reader)
        monkeypatch.setattr(promoting, "read_history", lambda settings, believed: then)
        return next(iter(watch(Settings(bootstrap=NOWHERE), read_trust(trust()), asked, 5.0)))

    return look


@pytest.mark.parametrize(
    ("action", "mode", "now", "ended", "good"),
    [
        ("promote", "always", (FIRST,), False, False),
        ("promote", "always", (FIRST, START), False, False),
        ("promote", "always", (FIRST, START, DONE), True, True),
        ("promote", "always", (FIRST, START, ABORT), True, False),
        ("rollback", "observe", (FIRST, START), False, False),
        ("rollback", "observe", (FIRST, START, ABORT), True, True),
    ],
)
def test_a_request_has_ended_when_its_mode_is_in_force_and_not_when_its_bundle_is(
    seen: Callable[[Asked, History, History], Progress],
    action: str,
    mode: str,
    now: tuple[Release, ...],
    ended: bool,
    good: bool,
):
    asked = Asked(action, "source", 1, ONE.digest, "approval", mode)  # type: ignore[arg-type]
    found = seen(asked, history(FIRST), history(*now))
    assert (found.ended, found.good) == (ended, good)
