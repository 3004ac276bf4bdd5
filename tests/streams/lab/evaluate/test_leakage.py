"""No label of the target reaches a source, a choice, the policy or an answer, from options to files."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acclimate.adaptation.evaluation.run import Answers, run_stream
from acclimate.streams.lab.evaluate.evaluation import run_evaluation
from acclimate.streams.lab.evaluate.options import EvaluationOptions


def test_with_permuted_target_labels_everything_but_the_scores_is_the_same(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered: list[np.ndarray[Any, Any]] = []

    def keep(*arguments: Any) -> Answers:
        answers = run_stream(*arguments)
        answered.append(answers.probabilities)
        return answers

    monkeypatch.setattr("acclimate.streams.lab.evaluate.task_runner.run_stream", keep)
    monkeypatch.setattr("acclimate.adaptation.methods.policy_calibration.default_epochs", lambda _: 1)  # to be quick
    arrays = dict(np.load(recordings))
    target = np.flatnonzero(arrays["device"] >= 4)
    kept, runs = [], []
    for permuted in (False, True):
        folder = tmp_path / str(permuted)
        folder.mkdir()
        labels = arrays["y"].copy()
        if permuted:
            labels[target] = np.random.default_rng(0).permutation(labels[target])
        data = folder / "waves.npz"
        np.savez(data, **{**arrays, "y": labels})
        shutil.copy(recordings.with_suffix(".json"), data.with_suffix(".json"))
        options = EvaluationOptions(
            {"data": data, "source": ("device=0-3",), "target": ("device=4-5",)},
            ("source", "tent", "t3a", "policy"),
            batch_sizes=(8,),
            seeds=1,
            augment=("auto",),
            epochs=1,
            jobs=0,
        )
        answered.clear()
        assert not run_evaluation(options, folder / "out", progress=lambda *_: None)
        files = {path.name: path.read_bytes() for path in (folder / "out" / "sources").iterdir()}
        kept.append((files, list(answered)))
        runs.append((folder / "out" / "finished.jsonl").read_text().splitlines())
    (files, answers), (other_files, other_answers) = kept
    assert {"choice.json", "seed-0-none.safetensors", "seed-0-none.json"} <= files.keys()
    assert any(name.endswith(".policy") for name in files)
    assert files == other_files
    assert len(answers) == len(other_answers) == len(runs[0]) >= 8
    assert runs[0] != runs[1]  # the scores are of the labels
    assert all(np.array_equal(one, two) for one, two in zip(answers, other_answers, strict=True))
