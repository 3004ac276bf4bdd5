"""`acclimate register`, `gate`, `candidates`: what is judged is what the controller releases; real Kafka and MLflow."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from kafka.errors import KafkaError

from acclimate.adaptation.lean.shift import calibrate
from acclimate.adaptation.model.nets import Classifier, from_tensors
from acclimate.registry.bundles.source_bundle import build_bundle, read_bundle
from acclimate.registry.releases.verdict import Verdict
from acclimate.streams.cli import main
from acclimate.streams.releases.controller import Controller
from acclimate.streams.releases.judging import register as registering
from acclimate.streams.wire.codec import FeatureBatch, encode_features
from tests.support.plant import Plant
from tests.support.signed import private

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("mlflow"), pytest.mark.filterwarnings("ignore")]

WHERE = ("--where", "device=4-5")


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


@dataclass(frozen=True)
class Made:
    """Folders of bundles that were made once for all tests."""

    data: list[str]
    recordings: Path
    good: Path
    better: Path
    wrong: Path


@pytest.fixture(scope="module")
def made(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("registered")
    data = ["--data", str(recordings), "--source", "device=0-3"]
    for name, seed in (("good", "0"), ("better", "1")):
        assert (
            run("train", *data, "--augment", "none", "--epochs", "30", "--seed", seed, "--out", str(folder / name)) == 0
        )
    altered(folder / "good", folder / "wrong", recordings, mix_up_two_classes)
    return Made(data, recordings, folder / "good", folder / "better", folder / "wrong")


def altered(folder: Path, out: Path, recordings: Path, change: Callable[[Classifier], None]) -> None:
    """Write a bundle with other weights that is whole in itself."""
    bundle = read_bundle(folder)
    model = from_tensors(bundle.spec, bundle.tensors)
    change(model)
    windows = np.load(recordings)["X"].astype(np.float32)
    channels, classes = bundle.manifest.channel_names, bundle.manifest.class_names
    settings, card = bundle.settings, dict(bundle.manifest.training)
    build_bundle(model, settings, calibrate(model, windows[:160], windows[160:]), channels, classes, card,
                 windows[:8], out)  # fmt: skip


@torch.no_grad()
def mix_up_two_classes(model: Classifier) -> None:
    order = torch.tensor([1, 0, 2])
    model.head.weight.copy_(model.head.weight[order])
    model.head.bias.copy_(model.head.bias[order])


class Desk:
    """A plant, and the commands of somebody who has the gates' key."""

    def __init__(self, plant: Plant, patch: pytest.MonkeyPatch, output: pytest.CaptureFixture[str]) -> None:
        self.plant, self._output = plant, output
        key = plant.folder / "gate.pem"
        key.write_bytes(private("gate").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        key.chmod(0o600)
        for name in ("bootstrap", "fleet", "mlflow", "trust"):
            patch.setenv(f"ACCLIMATE_{name.upper()}", str(getattr(plant.settings, name)))
        patch.setenv("ACCLIMATE_GATE_KEY", str(key))
        rules = plant.folder / "rules.toml"  # two trainings of one recording differ by more under worse faults
        rules.write_text(
            '[gates.shifts]\nkinds = ["gain", "offset", "noise"]\nseverities = [1.0]\n'
            "[gates.shadow]\nchanged_share = 0.15\n"
        )
        patch.setenv("ACCLIMATE_POLICY", str(rules))

    def run(self, code: int, *arguments: str) -> Any:
        """Run a command with --json and return what it printed."""
        self._output.readouterr()
        found = run(*arguments, "--json")
        said = self._output.readouterr()
        assert found == code, said.err + said.out
        return json.loads(said.out.splitlines()[-1]) if said.out else said.err

    def verdicts(self) -> list[Verdict]:
        return [each.verdict for each in self.plant.history().verdicts]

    def release(self, controller: Controller, version: int, kind: str = "source") -> list[str]:
        """Move the alias and let the controller do what there is to do."""
        self.plant.catalogue.set_alias(kind, "champion", version)  # type: ignore[arg-type]
        done = []
        while (step := controller.turn()) is not None:
            done.append(step.partition(": ")[2])
        return done


@pytest.fixture
def desk(
    kafka: str, fleet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Desk]:
    plant = Plant(kafka, fleet, tmp_path / "plant")
    yield Desk(plant, monkeypatch, capsys)
    plant.close()


@pytest.fixture
def controller(desk: Desk) -> Iterator[Controller]:
    controller = desk.plant.controller()
    yield controller
    controller.close()


def outcomes(verdict: dict[str, Any]) -> dict[str, str]:
    return {each["gate"]: each["outcome"] for each in verdict["findings"]}


def finding(verdict: dict[str, Any], gate: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in verdict["findings"] if each["gate"] == gate)
    return found


def test_a_registered_bundle_is_released_after_the_alias_moves_and_a_worse_one_is_not(
    desk: Desk, controller: Controller, made: Made
):
    validation = ["--validation", str(made.recordings), *WHERE]
    first = desk.run(0, "register", str(made.good), *validation)
    assert (first["version"], first["champion"], first["new"]) == (1, None, True)
    assert outcomes(first)["evaluation"] == "skipped"  # there is nothing to compare with yet
    assert desk.release(controller, 1) == ["complete"]

    second = desk.run(0, "register", str(made.better), *validation)
    assert second["champion"] == read_bundle(made.good).digest
    assert outcomes(second)["evaluation"] == outcomes(second)["shifts"] == "passed"
    assert desk.plant.catalogue.aliased("candidate") == {"source": 2}
    assert desk.release(controller, 2) == ["start", "complete"]

    third = desk.run(3, "register", str(made.wrong), *validation)
    assert outcomes(third)["evaluation"] == "failed"
    figures = finding(third, "evaluation")["figures"]
    assert figures["given: accuracy"] < figures["given: champion's accuracy"] - 0.3
    assert "allowed" in finding(third, "evaluation")["message"]
    assert desk.plant.catalogue.aliased("candidate") == {"source": 2}
    assert desk.release(controller, 3) == []
    assert [(each.remark.about, each.remark.version) for each in desk.plant.history().remarks] == [("refused", 3)]


def test_figures_are_those_of_a_count_by_hand(desk: Desk, made: Made):
    found = desk.run(0, "register", str(made.good), "--validation", str(made.recordings), *WHERE)
    stored = np.load(made.recordings)
    rows = np.isin(stored["device"], [4, 5])
    bundle = read_bundle(made.good)
    outputs = bundle.engine().run(stored["X"][rows].astype(np.float32))
    right = 0
    for i, label in enumerate(stored["y"][rows]):
        adapted = float(outputs.magnitude[i]) >= bundle.settings.threshold
        answer = outputs.adapted_probabilities[i] if adapted else outputs.source_probabilities[i]
        right += int(answer.argmax() == label)
    figures = finding(found, "evaluation")["figures"]
    assert figures["given: accuracy"] == pytest.approx(right / rows.sum(), abs=1e-6)
    assert figures["given: windows"] == rows.sum() == 80


@pytest.mark.long
def test_rows_that_the_model_was_trained_on_are_no_validation_set(desk: Desk, made: Made):
    said = desk.run(2, "register", str(made.good), "--validation", str(made.recordings), "--where", "device=3-5")
    assert "trained on" in said
    assert desk.plant.catalogue.versions("source") == []


def test_a_verdict_counts_only_against_the_champion_it_was_made_against(desk: Desk, controller: Controller, made: Made):
    desk.run(0, "register", str(made.good))
    desk.run(0, "register", str(made.better))
    assert desk.release(controller, 1) == ["complete"]
    assert desk.release(controller, 2) == []  # was judged while nothing was in force
    rows = {row["version"]: row for row in desk.run(0, "candidates")}
    assert not rows[2]["fits"]
    assert rows[2]["next"] == "acclimate gate source 2"
    assert desk.run(0, "gate", "source", "2")["champion"] == read_bundle(made.good).digest
    assert {row["version"]: row["next"] for row in desk.run(0, "candidates")}[2] == "acclimate promote source 2"
    assert desk.release(controller, 2) == ["start", "complete"]


def test_force_needs_a_reason_which_is_signed_with_the_verdict(desk: Desk, controller: Controller, made: Made):
    desk.run(0, "register", str(made.good))
    desk.release(controller, 1)
    validation = ["--validation", str(made.recordings), *WHERE]
    assert "reason" in desk.run(2, "register", str(made.wrong), *validation, "--force", " ")
    desk.run(3, "register", str(made.wrong), *validation)
    assert desk.release(controller, 2) == []
    forced = desk.run(0, "gate", "source", "2", *validation, "--force", "labels were mixed up at the plant")
    assert outcomes(forced)["evaluation"] == "failed"
    assert desk.verdicts()[-1].forced == "labels were mixed up at the plant"
    assert desk.release(controller, 2) == ["start", "complete"]


@pytest.mark.parametrize("again", ["register", "gate"])
def test_a_crash_between_catalogue_and_history_is_repaired(
    again: str, desk: Desk, controller: Controller, made: Made, monkeypatch: pytest.MonkeyPatch
):
    def gone(*arguments: object) -> None:
        raise KafkaError("the broker is gone")

    with monkeypatch.context() as patch:
        patch.setattr(registering, "send_statement", gone)
        desk.run(4, "register", str(made.good))
    assert desk.verdicts() == []
    assert [row["gates"] for row in desk.run(0, "candidates")] == ["not judged"]
    assert desk.release(controller, 1) == []
    command = ("register", str(made.good)) if again == "register" else ("gate", "source", "1")
    assert desk.run(0, *command)["new"] is False
    assert [each.version for each in desk.plant.catalogue.versions("source")] == [1]
    assert desk.release(controller, 1) == ["complete"]


def publish(plant: Plant, recordings: Path) -> None:
    """Send every device's windows, one record of ten windows after the other, and some noise."""
    stored = np.load(recordings)
    for device in np.unique(stored["device"]):
        windows = stored["X"][stored["device"] == device].astype(np.float32)
        for first in range(0, len(windows), 10):
            times = tuple(1_700_000_000_000 + first + i for i in range(10))
            batch = FeatureBatch(f"pump-{device}", "00ff00ff00ff00ff", first, times, windows[first : first + 10])
            plant.send("features", batch.device, encode_features(batch))
    for value in (b"noise", b""):
        plant.send("features", "pump-0", value)
    plant.flush()


def test_a_bundle_that_changes_the_answers_to_recent_traffic_fails_in_the_shadow(
    desk: Desk, controller: Controller, made: Made
):
    desk.run(0, "register", str(made.good))
    desk.release(controller, 1)
    assert "no traffic" in finding(desk.run(0, "gate", "source", "1"), "shadow")["message"]
    publish(desk.plant, made.recordings)
    same = finding(desk.run(0, "gate", "source", "1"), "shadow")
    assert same["outcome"] == "passed"
    assert same["figures"]["changed"] == 0
    assert (same["figures"]["windows"], same["figures"]["records passed over"]) == (240, 2)
    changed = finding(desk.run(3, "register", str(made.wrong)), "shadow")
    assert changed["outcome"] == "failed"
    assert changed["figures"]["changed"] > 0.5


@pytest.mark.long
def test_a_generator_fits_only_the_source_that_it_was_made_for(
    desk: Desk, controller: Controller, made: Made, tmp_path: Path
):
    for name, source in (("fits", made.good), ("foreign", made.better)):
        out = str(tmp_path / name)
        assert run("meta-train", "mgg", "--bundle", str(source), *made.data, "--out", out, "--updates", "3") == 0
    desk.run(0, "register", str(made.good))
    desk.release(controller, 1)
    foreign = desk.run(3, "register", str(tmp_path / "foreign"))
    assert outcomes(foreign) == {
        "contract": "failed", "canary": "skipped", "evaluation": "skipped", "shifts": "skipped", "anchor": "skipped",
        "shadow": "skipped",
    }  # fmt: skip
    assert read_bundle(made.good).digest[:12] in finding(foreign, "contract")["message"]
    fits = desk.run(0, "register", str(tmp_path / "fits"), "--validation", str(made.recordings), *WHERE)
    assert outcomes(fits)["evaluation"] == "passed"  # against the source alone
    assert (fits["champion"], fits["source"]) == (None, read_bundle(made.good).digest)
    assert desk.release(controller, 2, "mgg") == ["start", "complete"]


def test_an_aligned_encoder_is_judged_against_its_source_alone(
    desk: Desk, controller: Controller, made: Made, tmp_path: Path
):
    out = tmp_path / "cta"
    assert run("align", "--bundle", str(made.good), *made.data, "--epochs", "2", "--out", str(out)) == 0
    desk.run(0, "register", str(made.good))
    desk.release(controller, 1)
    code = run("register", str(out), "--validation", str(made.recordings), *WHERE)
    assert code in (0, 3)  # two epochs make no good encoder
    judged = desk.verdicts()[-1]
    assert (judged.kind, judged.source) == ("cta", read_bundle(made.good).digest)
    assert {each.gate: each.outcome for each in judged.findings}["canary"] == "passed"
    assert {each.gate: each.outcome for each in judged.findings}["evaluation"] in ("passed", "failed")


def test_a_key_that_the_fleet_does_not_believe_registers_nothing(desk: Desk, made: Made, monkeypatch: Any):
    other = desk.plant.folder / "other.pem"
    other.write_bytes(private("stranger").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    other.chmod(0o600)
    assert "gate key" in desk.run(2, "register", str(made.good), "--key", str(other))
    monkeypatch.delenv("ACCLIMATE_GATE_KEY")
    assert "ACCLIMATE_GATE_KEY" in desk.run(2, "register", str(made.good))
    assert desk.plant.catalogue.versions("source") == []
