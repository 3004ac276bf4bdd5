"""The controller releases what was asked for, judged and approved, in waves, and nothing else."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from acclimate.adaptation.errors import ConfigError, ContractError
from acclimate.registry.releases.release import Release, unit_hash
from acclimate.registry.releases.rollout import RolloutPolicy
from acclimate.streams.agents.adapt import AdaptCore
from acclimate.streams.releases.controller import Controller
from acclimate.streams.releases.receiver import Receiver
from acclimate.streams.releases.release_log import Fenced
from acclimate.streams.serving.served import InForce, in_force_of
from acclimate.streams.wire.predictions import parse_prediction
from acclimate.streams.wire.reading import read_topic
from acclimate.streams.wire.records import Incoming
from tests.support.delivery import feature_record
from tests.support.models import outputs, windows
from tests.support.plant import AT_ONCE, SALT, Plant
from tests.support.signed import key, private, trust

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("mlflow"), pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def plant(kafka: str, fleet: str, tmp_path: Path) -> Iterator[Plant]:
    plant = Plant(kafka, fleet, tmp_path)
    yield plant
    plant.close()


@pytest.fixture
def strict(kafka: str, fleet: str, tmp_path: Path) -> Iterator[Plant]:
    """Give a fleet in which one approver must sign for each bundle."""
    plant = Plant(kafka, fleet, tmp_path, approvals=1)
    yield plant
    plant.close()


@pytest.fixture
def controller(plant: Plant) -> Iterator[Controller]:
    controller = plant.controller()
    yield controller
    controller.close()


def settle(controller: Controller) -> list[str]:
    """Take turns until there is nothing left to do; return what was done."""
    done = []
    while (step := controller.turn()) is not None:
        done.append(step.partition(": ")[2])
    return done


def in_force(plant: Plant) -> Release:
    newest = plant.history().newest
    assert newest is not None
    return newest.release


def remarks(plant: Plant) -> list[tuple[str, int | None]]:
    return [(each.remark.about, each.remark.version) for each in plant.history().remarks]


def test_an_alias_is_the_request_and_its_version_reaches_a_receiver(plant: Plant, controller: Controller):
    first, second = plant.made("first"), plant.register("second")
    plant.champion(first)
    assert settle(controller) == ["complete"]
    assert in_force(plant).stable["source"] == first
    plant.champion(second)
    assert settle(controller) == []  # judged against nothing, while something is in force
    plant.judge(second)
    assert settle(controller) == ["start", "complete"]
    receiver: Receiver[str] = Receiver(
        plant.settings, ("source",), lambda loaded: loaded.release.stable["source"].digest
    )
    try:
        assert receiver.catch_up() == second.digest
    finally:
        receiver.close()
    assert plant.catalogue.aliased("previous") == {"source": first.version}


@pytest.mark.parametrize(("passed", "forced", "released"), [(False, None, False), (False, "a storm comes", True)])
def test_what_failed_its_gates_is_released_only_by_force(
    plant: Plant, controller: Controller, passed: bool, forced: str | None, released: bool
):
    member = plant.register("bad")
    plant.judge(member, passed, forced)
    plant.champion(member)
    assert settle(controller) == (["complete"] if released else [])
    assert remarks(plant) == ([] if released else [("refused", 1)])


def test_a_bundle_that_no_gate_has_signed_is_refused(plant: Plant, controller: Controller):
    member = plant.register("foreign", signed_by="stranger")
    plant.judge(member)
    plant.champion(member)
    assert settle(controller) == []
    assert remarks(plant) == [("refused", 1)]


def test_a_remark_is_made_once_and_not_at_every_look(plant: Plant, controller: Controller):
    plant.champion(plant.register("unjudged"))
    for _ in range(3):
        assert controller.turn() is None
    controller.close()
    again = plant.controller()
    try:
        assert again.turn() is None
    finally:
        again.close()
    assert remarks(plant) == [("waits", 1)]


def test_an_approval_of_what_only_newer_versions_know_holds_up_nothing(strict: Plant):
    controller = strict.controller()
    try:
        first = strict.made("first")
        strict.approve(first, action="freeze")
        strict.approve(first, kind="gate")
        assert settle(controller) == []
        strict.approve(first)
        settle(controller)
        assert in_force(strict).stable["source"].digest == first.digest
    finally:
        controller.close()


def test_where_approvals_are_asked_for_a_moved_alias_changes_nothing_but_a_report(strict: Plant):
    controller = strict.controller()
    try:
        first, second = strict.made("first"), strict.register("second")
        strict.approve(first)
        assert settle(controller) == ["complete"]
        strict.judge(second)
        strict.champion(second)
        assert settle(controller) == []
        assert in_force(strict).epoch == 1
        assert remarks(strict) == [("alias_differs", 2)]
        strict.approve(second, by="bob", reason="seen it")
        assert settle(controller) == ["start", "complete"]
        release = in_force(strict)
        assert (release.asked_by, release.approved_by) == ("bob", ("bob",))
        assert strict.catalogue.aliased("champion") == {"source": second.version}
    finally:
        controller.close()


def test_an_approval_sent_again_by_whoever_may_write_the_topic_is_no_new_wish(strict: Plant):
    controller = strict.controller()
    try:
        first, second = strict.made("first"), strict.register("second")
        strict.approve(first)
        assert settle(controller) == ["complete"]
        old = next(m.value for m in read_topic(strict.settings, "history") if b"approval" in m.value)
        strict.judge(second)
        strict.approve(second)
        assert settle(controller) == ["start", "complete"]
        strict.send("history", strict.settings.fleet, old)
        strict.flush()
        assert settle(controller) == []
        assert in_force(strict).stable["source"] == second
    finally:
        controller.close()


def test_a_return_to_what_was_in_force_needs_no_new_verdict_and_reaches_all_at_once(
    plant: Plant, controller: Controller
):
    first, second = plant.made("first"), plant.register("second")
    plant.champion(first)
    settle(controller)
    plant.judge(second)
    plant.champion(second)
    assert settle(controller) == ["start", "complete"]
    plant.champion(first)
    assert settle(controller) == ["rollback"]
    assert in_force(plant).stable["source"] == first
    assert not in_force(plant).candidate


def test_an_alias_moved_back_ends_the_roll_out_and_others_wait_for_its_end(plant: Plant):
    controller = plant.controller(RolloutPolicy(waves=(0.5, 1.0), observe_s=3600.0))
    try:
        first, second, third = plant.made("first"), plant.register("second"), plant.register("third")
        plant.champion(first)
        settle(controller)
        plant.judge(second)
        plant.judge(third)
        plant.champion(second)
        assert settle(controller) == ["start"]
        plant.champion(third)
        assert settle(controller) == []
        assert remarks(plant) == [("waits", 3)]
        plant.champion(first)
        assert settle(controller) == ["abort"]
        assert in_force(plant).stable["source"] == first
    finally:
        controller.close()


def test_what_was_asked_for_during_a_roll_out_is_not_forgotten_at_its_end(plant: Plant):
    slow = plant.controller(RolloutPolicy(waves=(0.5, 1.0), observe_s=3600.0))
    try:
        first, second, third = plant.made("first"), plant.register("second"), plant.register("third")
        plant.champion(first)
        settle(slow)
        plant.judge(second)
        plant.champion(second)
        assert settle(slow) == ["start"]
        plant.champion(third)
        assert settle(slow) == []
    finally:
        slow.close()
    controller = plant.controller()
    try:
        assert settle(controller) == ["wave", "complete"]
        assert in_force(plant).stable["source"] == second
        plant.judge(third)
        assert settle(controller) == ["start", "complete"]
        assert in_force(plant).stable["source"] == third
    finally:
        controller.close()


def test_a_signed_word_against_a_roll_out_ends_it(strict: Plant):
    controller = strict.controller(RolloutPolicy(waves=(0.5, 1.0), observe_s=3600.0))
    try:
        first, second = strict.made("first"), strict.register("second")
        strict.approve(first)
        settle(controller)
        strict.judge(second)
        strict.approve(second)
        assert settle(controller) == ["start"]
        strict.approve(first, action="rollback", reason="the night shift complains")
        assert settle(controller) == ["abort"]
        assert "night shift" in in_force(strict).reason
        assert settle(controller) == []
    finally:
        controller.close()


WAVES = RolloutPolicy(waves=(0.1, 1.0), observe_s=0.0, min_devices=20, bad_share_max=0.05)


def start_a_rollout(plant: Plant, controller: Controller, devices: list[str]) -> Release:
    """Put a first bundle in force, answer all devices with it, and begin the roll-out of a second."""
    first, second = plant.made("first"), plant.register("second")
    plant.champion(first)
    assert settle(controller) == ["complete"]
    for device in devices:
        plant.answer(device, 1, first.digest)
    plant.flush()
    time.sleep(0.01)  # the broker's clock counts milliseconds
    plant.judge(second)
    plant.champion(second)
    assert controller.turn() == "epoch 2: start"
    return in_force(plant)


def fleet_of(devices: int, wave: int, salt: str = SALT, share: float = 0.1) -> list[str]:
    """Return device names of which exactly so many are in the first wave."""
    names = [f"pump-{number}" for number in range(20 * devices)]
    inside = [name for name in names if unit_hash(salt, name) < share][:wave]
    return inside + [name for name in names if unit_hash(salt, name) >= share][: devices - wave]


@pytest.mark.parametrize(("bad", "ends"), [(0, "wave"), (1, "wave"), (2, "abort")])
def test_two_bad_devices_of_twenty_stop_a_roll_out_before_its_second_wave(plant: Plant, bad: int, ends: str):
    controller = plant.controller(WAVES)
    try:
        devices = fleet_of(200, wave=20)
        release = start_a_rollout(plant, controller, devices)
        inside = [device for device in devices if unit_hash(release.salt, device) < release.share]
        assert len(inside) == 20
        for number, device in enumerate(devices):
            if device in inside[:bad]:
                plant.refuse(f"device/{device}", epoch=2, running=1)
            elif number % 2 or device in inside:
                plant.answer(device, 2, release.chosen(device)["source"].digest)
        plant.flush()
        assert controller.turn() == f"epoch 3: {ends}"
        found = in_force(plant)
        assert bool(found.candidate) == (ends == "wave")
        assert f"20 of 20 devices seen, {bad} bad" in found.reason
        if ends == "abort":
            # Every device, also one that was off, finds the good bundle alone.
            assert {found.chosen(device)["source"].digest for device in devices} == {release.stable["source"].digest}
            assert settle(controller) == []
            assert plant.catalogue.aliased("champion") == {"source": release.stable["source"].version}
            assert remarks(plant) == [("alias_reset", 2)]
            print(
                f"200 devices, {len(inside)} in wave 1, {bad} bad: aborted before wave 2, 200 of 200 on the stable set"
            )
    finally:
        controller.close()


def answer_as_a_worker(
    plant: Plant, receiver: Receiver[InForce], devices: list[str]
) -> dict[str, tuple[int, str, str]]:
    """Answer a record of each device by what is in force; return epoch, bundle and mode that the receipts name."""
    new = receiver.catch_up()
    while new is None:
        new = receiver.poll()
    core, found = AdaptCore(plant.settings.fleet, new, 1_000_000), {}
    for device in devices:
        record = Incoming("features", 0, 0, 0, device.encode(), feature_record(device, 0, windows(2)), ())
        [output] = outputs(core, [record])
        said = parse_prediction(output.value)
        assert said is not None
        found[device] = (said.receipt.epoch, said.receipt.bundle, said.receipt.mode)
        plant.send("predictions", device, output.value)
    plant.flush()
    return found


def test_a_change_of_mode_goes_through_waves_is_aborted_finished_and_taken_back(plant: Plant):
    devices = [f"pump-{number}" for number in range(12)]
    inside = [device for device in devices if unit_hash(SALT, device) < 0.5]
    assert 0 < len(inside) < len(devices)
    controller = plant.controller(RolloutPolicy(waves=(0.5, 1.0), observe_s=0.0))
    receiver = Receiver(plant.settings, ("source",), in_force_of)
    try:
        member = plant.made("first")
        plant.champion(member)
        assert settle(controller) == ["complete"]
        source = member.digest
        assert answer_as_a_worker(plant, receiver, devices) == dict.fromkeys(devices, (1, source, "observe"))
        time.sleep(0.01)  # the broker's clock counts milliseconds

        plant.champion(member, mode="always")
        assert controller.turn() == "epoch 2: start"
        assert in_force(plant).stable == in_force(plant).candidate
        for device in inside:  # by the bundle of its set, but not in its mode
            plant.answer(device, 2, source, mode="observe")
        plant.flush()
        assert controller.turn() is None
        expected = {device: (2, source, "always" if device in inside else "observe") for device in devices}
        assert answer_as_a_worker(plant, receiver, devices) == expected
        plant.refuse(f"device/{inside[0]}", epoch=2, running=1)
        plant.flush()
        assert controller.turn() == "epoch 3: abort"
        assert settle(controller) == []
        assert (in_force(plant).stable_mode, remarks(plant)) == ("observe", [("alias_reset", 1)])
        assert answer_as_a_worker(plant, receiver, devices) == dict.fromkeys(devices, (3, source, "observe"))

        plant.champion(member, mode="always")
        assert controller.turn() == "epoch 4: start"
        answer_as_a_worker(plant, receiver, devices)
        assert controller.turn() == "epoch 5: wave"
        answer_as_a_worker(plant, receiver, devices)
        assert settle(controller) == ["complete"]
        assert answer_as_a_worker(plant, receiver, devices) == dict.fromkeys(devices, (6, source, "always"))
        assert plant.catalogue.tags("source", 1)["mode"] == ""

        plant.champion(member, mode="observe")
        assert settle(controller) == ["rollback"]
        assert (in_force(plant).stable["source"], in_force(plant).stable_mode) == (member, "observe")

        plant.champion(member, mode="by the moon")
        assert settle(controller) == []
        assert remarks(plant) == [("alias_reset", 1), ("refused", 1)]
    finally:
        receiver.close()
        controller.close()


def test_where_approvals_are_asked_for_a_mode_needs_its_own_and_a_return_ends_its_roll_out(strict: Plant):
    slow = strict.controller(RolloutPolicy(waves=(0.5, 1.0), observe_s=3600.0))
    try:
        first = strict.made("first")
        strict.approve(first)
        assert settle(slow) == ["complete"]
        strict.champion(first, mode="always")
        strict.approve(first, mode="gated")
        assert settle(slow) == []
        strict.approve(first, mode="always")
        assert settle(slow) == ["start"]
        strict.approve(first, action="rollback", reason="too many alarms")
        assert settle(slow) == ["abort"]
        assert (in_force(strict).stable_mode, in_force(strict).candidate) == ("observe", {})
    finally:
        slow.close()
    controller = strict.controller()
    try:
        strict.approve(first, mode="always", reason="again")
        assert settle(controller) == ["start", "complete"]
        assert in_force(strict).stable_mode == "always"
        strict.approve(first, action="rollback", reason="too many alarms, again")
        assert settle(controller) == ["rollback"]
        assert in_force(strict).stable_mode == "observe"
    finally:
        controller.close()


def test_a_wave_waits_until_enough_devices_have_answered_with_it(plant: Plant):
    controller = plant.controller(WAVES)
    try:
        devices = fleet_of(60, wave=20)
        release = start_a_rollout(plant, controller, devices)
        inside = [device for device in devices if unit_hash(release.salt, device) < release.share]
        for device in inside[:19]:
            plant.answer(device, 2, release.candidate["source"].digest)
        plant.answer(inside[19], 1, release.stable["source"].digest)  # its worker has not swapped yet
        plant.flush()
        assert controller.turn() is None
        plant.answer(inside[19], 2, release.candidate["source"].digest)
        plant.flush()
        assert controller.turn() == "epoch 3: wave"
    finally:
        controller.close()


def test_a_controller_that_was_killed_in_a_wave_is_followed_by_one_that_ends_it(plant: Plant):
    controller = plant.controller(WAVES)
    devices = fleet_of(40, wave=20)
    release = start_a_rollout(plant, controller, devices)
    for device in devices[:20]:
        plant.answer(device, 2, release.candidate["source"].digest)
    plant.flush()
    following = plant.controller(WAVES)  # the first one is not closed: as after kill -9, it is fenced
    try:
        assert settle(following)[0] == "wave"
        with pytest.raises(Fenced, match="another controller"):
            controller.follow(threading.Event(), poll_s=0.1)
    finally:
        following.close()
        controller.close()


def test_a_wave_whose_confidence_falls_against_the_control_group_is_aborted(plant: Plant):
    controller = plant.controller(WAVES)
    try:
        devices = fleet_of(200, wave=20)
        release = start_a_rollout(plant, controller, devices)
        for number, device in enumerate(devices):
            fallen = device in devices[:20]
            plant.answer(device, 2, release.chosen(device)["source"].digest, 0.75 if fallen else 0.9 - number % 3 / 100)
        plant.flush()
        assert controller.turn() == "epoch 3: abort"
        assert "confidence changed by -0.1" in in_force(plant).reason
    finally:
        controller.close()


def test_a_release_is_renewed_at_half_of_its_life_and_with_a_new_trust_file(plant: Plant):
    clock = [time.time_ns() // 1_000_000]
    controller = plant.controller(AT_ONCE, now_ms=lambda: clock[0])
    try:
        plant.champion(plant.made("first"))
        assert settle(controller) == ["complete"]
        clock[0] += 16 * 24 * 3600 * 1000
        assert controller.turn() == "epoch 2: renew"
        assert in_force(plant).expires_ms > clock[0] + 29 * 24 * 3600 * 1000
        assert controller.turn() is None
    finally:
        controller.close()


def test_a_key_that_the_fleet_does_not_believe_is_refused_at_start(plant: Plant):
    with pytest.raises(ConfigError, match="believes for releases"):
        Controller(plant.settings, AT_ONCE, private("stranger"), salt=lambda: "0" * 16)


@pytest.mark.long
def test_files_that_no_newer_release_names_are_removed_and_sent_again_for_a_return(plant: Plant):
    controller = plant.controller()
    try:
        members = []
        for number in range(13):  # two releases each, but for the first
            members.append(plant.made(f"bundle {number}"))
            plant.champion(members[-1])
            settle(controller)
        left: dict[str, bool] = {}
        for message in read_topic(plant.settings, "artifacts"):
            left[message.key.decode().partition("/")[0]] = message.value is not None
        gone = {member.digest for member in members if not left[member.digest]}
        assert gone == {member.digest for member in members[:2]}
        plant.champion(members[0])
        assert settle(controller) == ["rollback"]
        receiver: Receiver[str] = Receiver(
            plant.settings, ("source",), lambda loaded: loaded.release.stable["source"].digest
        )
        assert receiver.catch_up() == members[0].digest
        receiver.close()
    finally:
        controller.close()


def test_a_controller_refuses_to_begin_anew_below_what_receivers_have(
    plant: Plant, controller: Controller, monkeypatch: pytest.MonkeyPatch
):
    plant.champion(plant.made("first"))
    settle(controller)
    keys = (key("release", "fresh"), key("gate"))
    revoked = (key("release").key_id,)
    newer = trust(version=2, fleet=plant.settings.fleet, keys=keys, revoked=revoked)
    (plant.folder / "trust.json").write_text(newer.model_dump_json())
    monkeypatch.setattr("acclimate.streams.releases.controller._SEEN_S", 1.0)
    with pytest.raises(ContractError, match="before the old one is revoked"):
        Controller(plant.settings, AT_ONCE, private("fresh"), salt=lambda: SALT)


def test_an_approval_of_a_version_that_mlflow_has_lost_holds_up_nothing(strict: Plant):
    controller = strict.controller()
    try:
        good = strict.made("good")
        strict.approve(good.model_copy(update={"version": 99}), digest="ab" * 32)
        strict.approve(good)
        assert settle(controller) == ["complete"]
        assert in_force(strict).stable["source"] == good
        assert ("refused", 99) in remarks(strict)
    finally:
        controller.close()


def test_two_remarks_about_one_version_do_not_take_turns_for_ever(strict: Plant):
    controller = strict.controller()
    try:
        first = strict.made("first")
        strict.approve(first)
        settle(controller)
        unjudged = strict.register("second")
        strict.approve(unjudged)  # waits for its gates
        strict.champion(unjudged)  # and differs from what is in force
        for _ in range(4):
            assert controller.turn() is None
        assert sorted(remarks(strict)) == [("alias_differs", 2), ("waits", 2)]
        assert in_force(strict).stable["source"] == first
    finally:
        controller.close()
