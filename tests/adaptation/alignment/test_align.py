"""Alignment: the classifier stays as it is, equal seeds give equal encoders, and the head can read the new one."""

import functools
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load, save

from acclimate.adaptation.alignment.align import align
from acclimate.adaptation.alignment.aligned import Aligned, AlignmentSettings, project
from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.method import SourceContext
from acclimate.adaptation.model.network import Layer, Network, batch_statistics, normalise_with
from tests.adaptation.methods.numpy_net import source_for
from tests.adaptation.tiny_nets import MLP, tones, trained_on_tones, windows_for

pytestmark = pytest.mark.xdist_group("alignment")  # what is made once for all tests is made by one process


@functools.cache
def source() -> tuple[SourceContext, torch.Tensor]:
    model, _ = trained_on_tones()
    windows, labels = (torch.from_numpy(each) for each in tones(384, seed=5))
    return SourceContext(model, windows[:96], labels[:96], recorded=windows), labels


@functools.cache
def aligned(stage_two: bool = True) -> Aligned:
    context, labels = source()
    return align(context, labels, AlignmentSettings(aligned=stage_two, width=16), epochs=60)


def test_the_classifier_is_left_as_it_is() -> None:
    context, labels = source()
    before = {name: value.clone() for name, value in context.model.state_dict().items()}
    torch.manual_seed(3)
    drawn = torch.rand(2)
    torch.manual_seed(3)
    align(context, labels, AlignmentSettings(width=4), epochs=1)
    assert torch.equal(torch.rand(2), drawn)  # nor are the caller's draws
    assert all(torch.equal(value, before[name]) for name, value in context.model.state_dict().items())
    assert not context.model.training


def test_equal_seeds_give_equal_encoders_bit_for_bit() -> None:
    context, labels = source()
    one, two = (align(context, labels, AlignmentSettings(width=4), epochs=1) for _ in range(2))
    assert all(torch.equal(one.encoder[name], two.encoder[name]) for name in one.encoder)
    assert all(torch.equal(one.projector[name], two.projector[name]) for name in one.projector)
    assert torch.equal(one.head["weight"], two.head["weight"])


@pytest.mark.parametrize("joint", [False, True])
def test_a_run_goes_on_bit_for_bit_from_after_any_epoch(joint: bool) -> None:
    context, labels = source()
    settings, states = AlignmentSettings(width=4, joint=joint), []
    whole = align(context, labels, settings, epochs=2, keep=lambda state: states.append(save(dict(state))))
    assert len(states) == 4
    for done, state in enumerate(states, 1):
        later: list[int] = []
        kept = load(state)
        found = align(context, labels, settings, 2, progress=lambda *_: later.append(1), state=kept)  # noqa: B023
        assert len(later) == 4 - done
        for mine, theirs in ((found.encoder, whole.encoder), (found.projector, whole.projector)):
            assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
        assert (found.ssl_mean, found.matched) == (whole.ssl_mean, whole.matched)


def test_features_of_one_window_match_and_of_two_do_not() -> None:
    found = aligned()
    assert found.matched > found.mismatched + 0.3
    alone = aligned(stage_two=False)
    assert alone.matched < found.matched - 0.3


def test_the_mean_cosines_are_those_of_the_pairs() -> None:
    context, _ = source()
    network, found = Network(context.model), aligned()
    a, b = (
        torch.nn.functional.normalize(network.forward(context.all_windows, tensors).features, dim=1)
        for tensors in (found.encoder, None)
    )
    cosines = a @ b.T
    off = cosines[~torch.eye(len(a), dtype=torch.bool)]
    assert found.matched == pytest.approx(float(cosines.diagonal().mean()), abs=1e-4)
    assert found.mismatched == pytest.approx(float(off.mean()), abs=1e-4)


def test_the_refitted_head_reads_the_new_encoder() -> None:
    context, labels = source()
    network, found = Network(context.model), aligned()
    features = network.forward(context.all_windows, found.encoder).features
    answers = (features @ found.head["weight"].T + found.head["bias"]).argmax(dim=1)
    assert float((answers == labels).float().mean()) > 0.95
    assert set(found.encoder) == {name for name in network.tensors if not name.startswith("head.")}


def test_projections_are_those_of_the_layers() -> None:
    found = aligned()
    layers = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 16))
    layers.load_state_dict(dict(found.projector))
    features = torch.randn(5, 8)
    torch.testing.assert_close(project(found.projector, features), layers(features).detach())


def test_progress_names_both_stages() -> None:
    context, labels = source()
    seen: list[tuple[str, int, int]] = []
    align(context, labels, AlignmentSettings(width=4), 2, progress=lambda s, e, of, _: seen.append((s, e, of)))
    assert seen == [("self-supervised", 1, 2), ("self-supervised", 2, 2), ("alignment", 1, 2), ("alignment", 2, 2)]


def test_what_cannot_be_is_refused() -> None:
    context, labels = source()
    with pytest.raises(ConfigError, match="label for each"):
        align(context, labels[:-1], AlignmentSettings(), 1)
    with pytest.raises(ConfigError, match="temperatures"):
        AlignmentSettings(temperature=0)
    with pytest.raises(ConfigError, match="width"):
        AlignmentSettings(width=0)


def test_the_order_of_the_windows_does_not_narrow_the_statistics() -> None:
    context, labels = source()
    windows, labels = context.all_windows.repeat(3, 1, 1), labels.repeat(3)  # more than a batch of each class
    windows[labels == 0] += 5.0
    order = labels.argsort(stable=True)
    found = align(replace(context, recorded=windows[order]), labels[order], AlignmentSettings(width=4), epochs=1)
    network = Network(context.model)
    whole: dict[int, torch.Tensor] = {}

    def look(layer: Layer, x: torch.Tensor) -> torch.Tensor:
        mean, var = batch_statistics(x) or (layer.mean, layer.var)
        whole[layer.index] = var
        return normalise_with(layer, x, mean, var)

    network.forward(windows, found.encoder, look)
    torch.testing.assert_close(found.encoder["blocks.0.norm.running_var"], whole[0], rtol=0.1, atol=1e-3)


def test_a_row_too_many_for_whole_batches_is_no_error() -> None:
    context = source_for(MLP)
    rows = torch.from_numpy(windows_for(MLP, 257, seed=9))
    align(replace(context, recorded=rows), torch.arange(257) % 3, AlignmentSettings(width=4), epochs=1)
