"""Meta-training: the gradient that teaches, what it learns from, and that a killed run ends where it would have."""

import threading

import numpy as np
import pytest
import torch
from torch import Tensor

from acclimate.adaptation.errors import ConfigError, DataError
from acclimate.adaptation.generators.episodes import Recordings
from acclimate.adaptation.generators.generalizeformer import GeneralizeFormerSettings
from acclimate.adaptation.generators.generator import VARIANTS, Settings
from acclimate.adaptation.generators.meta_task import ALONE, Check, MetaState, MetaTask, Share
from acclimate.adaptation.generators.meta_train import MetaTrained, meta_train, start_state
from acclimate.adaptation.generators.meta_train_generalizeformer import GeneralizeFormerTraining
from acclimate.adaptation.generators.meta_train_mgg import MggTraining
from acclimate.adaptation.generators.mgg import MggSettings
from tests.adaptation.methods.numpy_net import source_for
from tests.adaptation.tiny_generators import recordings
from tests.adaptation.tiny_nets import MLP, trained_on_tones, windows_for

BOTH = pytest.mark.parametrize("settings", [MggSettings(), GeneralizeFormerSettings()], ids=["mgg", "generalizeformer"])


def trained(settings: Settings, updates: int, **more: object) -> MetaTrained:
    return meta_train(trained_on_tones()[0], recordings(), settings, 0, updates, **more)  # type: ignore[arg-type]


def weights(result: MetaTrained) -> Tensor:
    return torch.cat([value.flatten() for _, value in sorted(result.generator.weights.items())])


@BOTH
def test_it_learns_to_beat_the_source_on_groups_that_it_never_saw(settings: Settings) -> None:
    result = trained(settings, 16 if isinstance(settings, MggSettings) else 100)
    assert result.helps
    assert result.best.loss < 0.95 * result.best.source_loss
    assert result.best in result.checks
    assert result.generator.valid_range.mean_limit > 0.1


@BOTH
def test_a_run_that_was_killed_goes_on_to_the_same_result_bit_for_bit(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = 2 if isinstance(settings, MggSettings) else 5
    monkeypatch.setattr(MggTraining if every == 2 else GeneralizeFormerTraining, "check_every", every)
    kept: list[MetaState] = []
    whole = trained(settings, 3 * every, keep=kept.append)
    assert [int(state["update"]) for state in kept] == [every, 2 * every, 3 * every]
    resumed = trained(settings, 3 * every, state={name: value.clone() for name, value in kept[0].items()})
    assert torch.equal(weights(resumed), weights(whole))
    assert resumed.checks == whole.checks
    assert resumed.generator.valid_range == whole.generator.valid_range


@BOTH
def test_two_processes_that_share_the_episodes_end_where_one_ends(settings: Settings) -> None:
    every = 4 if isinstance(settings, MggSettings) else 25
    barrier, slots, results = threading.Barrier(2), [torch.zeros(0)] * 2, [None, None]

    def exchanged(rank: int, value: Tensor) -> Tensor:
        slots[rank] = value.clone()
        barrier.wait()
        both = torch.stack(slots)
        barrier.wait()
        return both

    # Threads stand in for processes; torch's global state, which initial weights come from, is one to them. So they
    # begin with the weights of one.
    task = MetaTask(trained_on_tones()[0], recordings(), 0, "cpu", ALONE)
    mgg = isinstance(settings, MggSettings)
    training = MggTraining(task, settings) if mgg else GeneralizeFormerTraining(task, settings)  # type: ignore[arg-type]
    start = start_state(training, 0)

    def work(rank: int) -> None:
        share = Share(rank, 2, lambda v: exchanged(rank, v).mean(dim=0), lambda v: exchanged(rank, v).amax(dim=0))
        results[rank] = trained(settings, every, share=share, state=start)  # type: ignore[call-overload]

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = trained(settings, every)
    first, second = results
    assert first is not None
    assert second is not None
    assert torch.equal(weights(first), weights(second))
    torch.testing.assert_close(weights(first), weights(alone), atol=2e-3, rtol=0)
    assert first.generator.valid_range.mean_limit == pytest.approx(alone.generator.valid_range.mean_limit, rel=1e-3)


@BOTH
def test_neither_the_model_nor_global_randomness_is_touched(settings: Settings) -> None:
    model = trained_on_tones()[0]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    trained(settings, 1)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@BOTH
def test_patience_ends_a_run_that_gets_no_better(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = MggTraining if isinstance(settings, MggSettings) else GeneralizeFormerTraining
    monkeypatch.setattr(kind, "check_every", 1)
    monkeypatch.setattr(kind, "check", lambda self, state, update: Check(update, float(update), 0.5, 0.0, 1.0))
    result = trained(settings, 100)
    assert result.updates == 9
    assert result.best.update == 1
    assert not result.helps


@BOTH
def test_progress_is_told_after_every_update(settings: Settings) -> None:
    told: list[tuple[int, int]] = []
    trained(settings, 3, progress=lambda done, of, loss, check: told.append((done, of)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_every_variant_trains_on_rows_without_time() -> None:
    rng = np.random.default_rng(0)
    windows = windows_for(MLP, 240, seed=4)
    source = Recordings(windows, rng.integers(0, MLP.classes, 240), np.repeat(["a", "b"], 120))
    for settings in VARIANTS.values():
        result = meta_train(source_for(MLP).model, source, settings, 0, 1)
        assert torch.isfinite(weights(result)).all()


@BOTH
def test_a_checkpoint_of_another_training_is_refused(settings: Settings) -> None:
    kept: list[MetaState] = []
    trained(settings, 1, keep=kept.append)
    other = GeneralizeFormerSettings() if isinstance(settings, MggSettings) else MggSettings()
    with pytest.raises(ConfigError, match="another training"):
        trained(other, 2, state=kept[0])
    with pytest.raises(ConfigError, match="another training"):
        meta_train(trained_on_tones()[0], recordings(), settings, 1, 2, state=kept[0])


def test_windows_that_lead_to_nothing_finite_are_refused() -> None:
    source = recordings()
    source.windows[:] = np.nan
    with pytest.raises(DataError, match="finite"):
        meta_train(trained_on_tones()[0], source, GeneralizeFormerSettings(), 0, 1)
    with pytest.raises(ConfigError, match="updates"):
        trained(MggSettings(), 0)


@BOTH
@pytest.mark.parametrize("processes", [3, 8])
def test_processes_that_could_not_share_the_episodes_evenly_are_refused(settings: Settings, processes: int) -> None:
    with pytest.raises(ConfigError, match="expected 1, 2 or 4"):
        trained(settings, 1, share=Share(0, processes))


def test_the_generator_carries_the_share_of_its_steps_that_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, settings in ((MggTraining, MggSettings()), (GeneralizeFormerTraining, GeneralizeFormerSettings())):
        monkeypatch.setattr(kind, "finished", lambda self, state, update: (0.25, Check(update, 1.0, 1.0, 0.5, 0.5)))
        assert trained(settings, 1).generator.step_share == 0.25
    assert trained(MggSettings(), 1).generator.mgg().settings.alpha == 0.25 * 0.03
