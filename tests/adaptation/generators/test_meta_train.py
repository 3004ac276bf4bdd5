"""Meta-training: the gradient that teaches, what it learns from, and that a killed run ends where it would have."""

import copy
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adaptation.errors import ConfigError, DataError
from adaptation.generators import meta_train as module
from adaptation.generators.affine_gradient import look, split
from adaptation.generators.episodes import Recordings
from adaptation.generators.generalizeformer import GeneralizeFormerSettings
from adaptation.generators.generator import VARIANTS, Settings
from adaptation.generators.meta_train import Check, MetaState, MetaTrained, Share, meta_train
from adaptation.generators.mgg import MggSettings
from tests.adaptation.methods.numpy_net import source_for
from tests.adaptation.tiny_nets import CONV, MLP, tones, trained_on_tones, windows_for

BOTH = pytest.mark.parametrize("settings", [MggSettings(), GeneralizeFormerSettings()], ids=["mgg", "generalizeformer"])


def recordings(seed: int = 2) -> Recordings:
    windows, labels = tones(600, seed)
    return Recordings(windows, labels, np.repeat([f"g{i}" for i in range(6)], 100))


def trained(settings: Settings, updates: int, **more: object) -> MetaTrained:
    return meta_train(trained_on_tones()[0], recordings(), settings, 0, updates, **more)  # type: ignore[arg-type]


def weights(result: MetaTrained) -> Tensor:
    return torch.cat([value.flatten() for _, value in sorted(result.generator.weights.items())])


class Watched(module._MggTraining):
    """Two or three batches of an episode in float64; keeps the gradient of the last step of Adam, and makes none."""

    gradient: dict[str, Tensor]

    def drawn(self, number: int, episodes: int, windows: int) -> tuple[Tensor, Tensor]:
        drawn = torch.from_numpy(windows_for(CONV, 2 * windows, seed=number)).double()
        labels = torch.arange(2 * windows).reshape(2, windows) % CONV.classes
        return drawn.reshape(2, windows, *drawn.shape[1:]), labels

    def stepped(self, state: MetaState, module: nn.Module, loss: Tensor, rate: float, decay: float = 0.0) -> MetaState:  # type: ignore[override]
        names, values = zip(*module.named_parameters(), strict=True)
        self.gradient = dict(zip(names, torch.autograd.grad(loss, values, materialize_grads=True), strict=True))
        return state


@pytest.mark.parametrize("unroll", [1, 2])
def test_the_meta_gradient_is_the_slope_of_the_next_batches_cross_entropy(
    unroll: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_STREAM_BATCHES", unroll + 1)
    monkeypatch.setattr(module, "_BATCHES", (4, 4, 4))
    context = source_for(CONV)
    many = np.repeat(context.windows.numpy(), 4, axis=0)
    source = Recordings(many, np.arange(200) % CONV.classes, np.repeat(["a", "b"], 100))
    model = copy.deepcopy(context.model)
    training = Watched(model, source, MggSettings(alpha=0.05, unroll=unroll), 0, "cpu", Share())
    training.network = type(training.network)(model.double())
    training.start = {name: training.network.tensors[name] for name in training.network.affine}
    training.source = replace(training.source, **{k: v.double() for k, v in vars(training.source).items()})
    training.mgg.double()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for value in training.mgg.parameters():
            value.add_(0.3 * torch.randn(value.shape, generator=generator, dtype=torch.float64))
    state = {f"weights/{name}": value.clone() for name, value in training.mgg.state_dict().items()}
    training.advance({**state, "range": torch.zeros(2, dtype=torch.float64)}, 0, 0.0)

    windows, labels = training.drawn(0, 4, (unroll + 1) * 4)
    batches = list(zip(torch.split(windows, 4, dim=1), torch.split(labels, 4, dim=1), strict=True))
    shown: list[Tensor] = []  # constant to the optimizer: recorded once, at the weights as they are

    def loss(record: bool) -> float:
        coordinates = torch.cat(list(training.start.values())).expand(2, -1)
        memory, moments = training.mgg.start(coordinates.numel()), module.moments_start(tuple(coordinates.shape))
        total = 0.0
        for index, (x, y) in enumerate(batches):
            flat = x.flatten(0, 1)
            if index:
                logits = look(training.network, flat, split(coordinates, training.start), 2).logits
                total += float(nn.functional.cross_entropy(logits, y.flatten()))
            if record:
                _, gradient = module.affine_gradient(
                    training.network, flat, split(coordinates, training.start), training.source, training.weight, 2
                )
                moments, pair = module.moments_step(moments, module.join(gradient))
                shown.append(pair)
            u, memory = training.mgg(shown[index].flatten(0, 1), memory)
            coordinates = coordinates - 0.05 * u.reshape(coordinates.shape)
        return total

    with torch.no_grad():
        loss(record=True)
        for name, value in training.mgg.named_parameters():
            flat = value.view(-1)
            for place in range(min(6, flat.numel())):
                kept = flat[place].item()
                sides = []
                for step in (1e-5, -1e-5):
                    flat[place] = kept + step
                    sides.append(loss(record=False))
                flat[place] = kept
                slope = (sides[0] - sides[1]) / 2e-5
                assert training.gradient[name].flatten()[place].item() == pytest.approx(slope, abs=1e-7, rel=1e-4)


@pytest.mark.parametrize("classifier", [False, True])
def test_cross_entropy_reaches_every_weight_of_the_transformer_from_the_second_update_on(classifier: bool) -> None:
    settings = GeneralizeFormerSettings(classifier=classifier)
    model, source = trained_on_tones()[0], recordings()
    training = module._GeneralizeFormerTraining(model, source, settings, 0, "cpu", Share())
    state = module._start(training, 0)
    state, _ = training.advance(state, 0, 0.5)  # past the first third: no imitation, cross-entropy alone
    moved = {
        name for name, value in training.former.named_parameters() if not torch.equal(value, training.weights[name])
    }
    assert {"head.weight", "head.bias"} <= moved
    before = {name: value.clone() for name, value in training.former.named_parameters()}
    windows, labels = training.drawn(1, 2, 32)
    p_new, _, _ = training._generated(windows[:, :16].flatten(0, 1), 2)
    logits = look(training.network, windows[:, 16:].flatten(0, 1), p_new, 2).logits
    loss = nn.functional.cross_entropy(logits, labels[:, 16:].flatten())
    gradients = torch.autograd.grad(loss, list(training.former.parameters()), allow_unused=True)
    without = [name for name, g in zip(before, gradients, strict=True) if g is None or not g.abs().max() > 0]
    assert without == []


@BOTH
def test_it_learns_to_beat_the_source_on_groups_that_it_never_saw(settings: Settings) -> None:
    result = trained(settings, 16 if isinstance(settings, MggSettings) else 100)
    assert result.helps
    assert result.best.loss < 0.95 * result.best.source_loss
    assert result.best in result.checks
    assert result.generator.valid_range.mean_limit > 0.1


@BOTH
def test_a_run_that_was_killed_goes_on_to_the_same_result_bit_for_bit(settings: Settings) -> None:
    every = 4 if isinstance(settings, MggSettings) else 25
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
    kind = module._MggTraining if isinstance(settings, MggSettings) else module._GeneralizeFormerTraining
    start = module._start(kind(trained_on_tones()[0], recordings(), settings, 0, "cpu", Share()), 0)  # type: ignore[arg-type]

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
    kind = module._MggTraining if isinstance(settings, MggSettings) else module._GeneralizeFormerTraining
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


@pytest.mark.parametrize(
    ("lost", "chosen"),
    [([0.0, 0.0, 0.0, 0.0], 1.0), ([0.02, 0.002, 0.0, 0.0], 0.5), ([0.1, 0.1, 0.003, 0.1], 0.125)],
)
def test_steps_at_test_are_the_largest_that_cost_the_unshifted_source_next_to_nothing(
    lost: list[float], chosen: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = MggSettings(alpha=0.02)
    training = module._MggTraining(trained_on_tones()[0], recordings(), settings, 0, "cpu", Share())
    by_alpha = {round(share * 0.02, 6): harm for share, harm in zip((1.0, 0.5, 0.25, 0.125), lost, strict=True)}
    asked: list[Tensor] = []

    def streamed(self: object, update: int, episodes: tuple[Tensor, ...], alpha: float) -> Check:
        asked.append(episodes[0])
        return Check(update, 1.0, 1.0, 0.9 - by_alpha[round(alpha, 6)], 0.9)

    monkeypatch.setattr(module._MggTraining, "_streamed", streamed)
    assert training.safe_alpha(module._start(training, 0)) == pytest.approx(chosen * 0.02)
    assert all(torch.equal(each, asked[0]) for each in asked)
    source = recordings()
    known = {window.tobytes() for window in source.windows}
    assert all(window.numpy().tobytes() in known for window in asked[0].flatten(0, 1))


def test_the_generator_carries_the_step_that_was_found_and_falls_back_on_its_settings() -> None:
    result = trained(MggSettings(), 1)
    assert result.generator.alpha in (0.03, 0.015, 0.0075, 0.00375)
    assert result.generator.step_limit == result.generator.alpha
    assert replace(result.generator, alpha=None).step_limit == 0.03
    assert trained(GeneralizeFormerSettings(), 1).generator.alpha is None
