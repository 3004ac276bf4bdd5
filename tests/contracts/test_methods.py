"""What every method of the catalogue promises, whatever it does: pure, saved and loaded, finite, of constant size.

One short stream per method and network is run once and looked at by many tests; batches of 1 and of 64 are in it.
A method that can do nothing on a network says so when it is configured: those pairs are listed, no other may.

Windows must be finite: whoever calls a method has refused the others before. Some need not be told: the policy, the
generators, and any method behind the guards, answer windows with missing samples by the source and learn nothing from
them.
"""

import copy
import functools
import hashlib
import inspect
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from acclimate.adaptation.alignment.aligned import Aligned
from acclimate.adaptation.errors import ConfigError, NotAdaptable
from acclimate.adaptation.generators.generator import VARIANTS
from acclimate.adaptation.guards.diversity import DiversityGuard
from acclimate.adaptation.guards.input_sanity import InputSanity
from acclimate.adaptation.guards.transaction import Guarded
from acclimate.adaptation.lean.lean_settings import LeanSettings
from acclimate.adaptation.method import Method, SourceContext, State, Step, state_bytes
from acclimate.adaptation.methods.catalogue import METHODS, make_method
from acclimate.adaptation.methods.policy_settings import PolicySettings
from acclimate.adaptation.methods.prepared import Prepared
from acclimate.adaptation.model.nets import Classifier
from acclimate.adaptation.model.network import Network
from acclimate.adaptation.model.spec import NetworkSpec
from tests.adaptation.tiny_alignments import drawn_alignments
from tests.adaptation.tiny_generators import drawn_generators
from tests.adaptation.tiny_nets import CONV, MLP, settled, windows_for

NETS = {"conv1d": CONV, "mlp": MLP}
BATCHES = [1, 64, 8, 1, 200, 8]  # a hybrid recalibrates every 256 windows
RELOADED_AFTER = 3  # batches
PROMISED = {
    *("source", "smoothing", "bn", "bn-prior", "ema-bn", "cum-bn", "oftta", "iabn"),
    *("leantta", "leantta-a", "leantta-hybrid"),
    *("tent", "eata", "sar", "cotta", "rotta", "pbrs", "t3a", "lame", "accup", "foa", "policy"),
    *("same-loss-sgd", "same-loss-adam", "mgg", "lstm", "generalizeformer", "generalizeformer-classifier"),
    *("cta", "cta-episodic", "cta-frozen", "ttt-y", "rec-ttt"),
}
# They rightly differ from the source on random windows in random order: they expect time order, or real signals.
DIFFERENT = {"smoothing", "lame", "leantta-a"}
# Half of their logits are the frozen source's: an encoder that collapsed does not silence them.
AVERAGED = {name for name in METHODS if name.startswith(("cta", "rec-ttt"))} - {"cta-refit"}
STATELESS = {"source", "iabn", "leantta-a", "leantta"}
# The policy with all that it can do, and nothing that holds it back.
ALWAYS = PolicySettings("statistics+prototypes", False, 1.0, 1.0, 256.0, weak=False)

# Rows without a time axis have no statistics of their own; leantta-hybrid has those of a period.
NOT_ADAPTABLE = {("leantta-a", "mlp"), ("leantta", "mlp"), ("iabn", "mlp")}


def pairs(names: Iterable[str]) -> pytest.MarkDecorator:
    found = [(name, net) for name in sorted(names) for net in NETS if (name, net) not in NOT_ADAPTABLE]
    return pytest.mark.parametrize(("name", "net"), [pytest.param(*pair, marks=one_process(pair[0])) for pair in found])


def one_process(name: str) -> pytest.MarkDecorator:
    """Let one process run all tests of a method: it records each run once."""
    return pytest.mark.xdist_group(name)


every_method = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=one_process(name)) for name in sorted(METHODS)]
)
every_pair = pairs(METHODS)
both_nets = pytest.mark.parametrize("net", NETS)


@dataclass(frozen=True, eq=False)
class Run:
    """States before each batch and after the last, and the answers; and what must not have changed on the way."""

    states: list[State]
    steps: list[Step]
    touched: tuple[str, ...]


def some_windows(spec: NetworkSpec, count: int, seed: int = 5) -> Tensor:
    return torch.from_numpy(windows_for(spec, count, seed))


@functools.cache
def source(spec: NetworkSpec) -> Classifier:
    """Return a network that is sure of its answers and gives every class about as often."""
    model = copy.deepcopy(settled(spec)[0])
    model.head.weight *= 8
    model.head.bias.sub_(model(some_windows(spec, 200, seed=1)).mean(dim=0))
    return model


def context_of(spec: NetworkSpec, model: nn.Module | None = None) -> SourceContext:
    windows = some_windows(spec, 200, seed=1)[:96]
    labels = source(spec)(windows).argmax(dim=1)
    return SourceContext(model or source(spec), windows, labels, 3)


def made(name: str, spec: NetworkSpec, model: nn.Module | None = None) -> Method:
    context = context_of(spec, model)
    alignments = alignments_of(spec) if model is None else drawn_alignments(context)
    return make_method(name, context, Prepared(ALWAYS, drawn_generators(spec), alignments))


@functools.cache
def alignments_of(spec: NetworkSpec) -> dict[str, Aligned]:
    return drawn_alignments(context_of(spec))  # to draw them takes longer than most tests


def tensors_of(alignments: Mapping[str, Aligned]) -> dict[str, Tensor]:
    return {
        f"{name} {part} {key}": value
        for name, aligned in alignments.items()
        for part in ("encoder", "head", "projector")
        for key, value in getattr(aligned, part).items()
    }


@functools.cache
def method_of(name: str, net: str) -> Method:
    return made(name, NETS[net])


def digest(tensors: Mapping[str, Tensor]) -> str:
    parts = (f"{key} {value.dtype} {value.shape}".encode() + value.numpy().tobytes() for key, value in tensors.items())
    return hashlib.sha256(b"".join(parts)).hexdigest()


def global_randomness() -> str:
    numpy_state = np.random.get_state(legacy=False)
    return hashlib.sha256(
        torch.get_rng_state().numpy().tobytes() + repr((numpy_state, random.getstate())).encode()
    ).hexdigest()


def follow(method: Method, state: State, batches: Sequence[Tensor]) -> tuple[list[State], list[Step]]:
    states, steps = [state], []
    for batch in batches:
        state, step = method.adapt_batch(state, batch)
        states.append(state)
        steps.append(step)
    return states, steps


@functools.cache
def recorded(name: str, net: str) -> Run:
    """Run the stream once, watching everything that a method was lent."""
    spec = NETS[net]
    windows = some_windows(spec, sum(BATCHES))
    context, before = context_of(spec), global_randomness()
    lent = {"windows": windows, "source windows": context.windows, "source labels": context.labels}
    lent |= tensors_of(alignments_of(spec))
    digests = {key: digest({key: value}) for key, value in lent.items()} | {"model": digest(context.model.state_dict())}
    method = method_of(name, net)
    states, steps, touched = [method.reset()], [], []
    for batch in torch.split(windows, BATCHES):
        state = states[-1]
        state_digest = digest(state)
        new, step = method.adapt_batch(state, batch)
        if digest(state) != state_digest:
            touched.append("state")
        states.append(new)
        steps.append(step)
    after = {key: digest({key: value}) for key, value in lent.items()} | {"model": digest(context.model.state_dict())}
    touched += [key for key in digests if digests[key] != after[key]]
    if global_randomness() != before:
        touched.append("global random state")
    if any(module._forward_hooks or module._forward_pre_hooks for module in context.model.modules()):
        touched.append("hooks of the model")
    return Run(states, steps, tuple(touched))


def check_answers(step: Step, count: int, classes: int) -> None:
    p = step.probabilities
    assert p.shape == (count, classes)
    assert torch.isfinite(p).all()
    assert (p >= 0).all()
    torch.testing.assert_close(p.sum(dim=1), torch.ones(count), atol=1e-5, rtol=0)
    assert not p.requires_grad


def test_the_catalogue_holds_every_method_that_was_promised_and_names_no_other() -> None:
    assert set(METHODS) >= PROMISED
    with pytest.raises(ConfigError, match="no-such-method"):
        made("no-such-method", CONV)


@every_pair
def test_nothing_that_was_lent_is_written_and_no_global_randomness_is_used(name: str, net: str) -> None:
    assert recorded(name, net).touched == ()


@every_pair
def test_answers_are_finite_rows_sum_to_1_and_batches_of_1_and_64_work(name: str, net: str) -> None:
    run = recorded(name, net)
    for step, count in zip(run.steps, BATCHES, strict=True):
        check_answers(step, count, NETS[net].classes)
        assert step.selected >= 0
        assert step.updates >= 0
        assert step.resets >= 0
    for state in run.states:
        assert not any(value.requires_grad for value in state.values())
        assert all(torch.isfinite(value).all() for key, value in state.items() if key in method_of(name, net).adapts)


@every_pair
def test_two_runs_are_equal_and_a_state_saved_and_loaded_half_way_continues_bit_for_bit(name: str, net: str) -> None:
    run = recorded(name, net)
    batches = torch.split(some_windows(NETS[net], sum(BATCHES)), BATCHES)
    again = made(name, NETS[net])  # a new process would build a new one
    fresh = load(save(dict(again.reset())))
    assert digest({key: fresh[key] for key in run.states[0]}) == digest(run.states[0])
    states, steps = follow(again, load(save(dict(run.states[RELOADED_AFTER]))), batches[RELOADED_AFTER:])
    for found, expected in zip(steps, run.steps[RELOADED_AFTER:], strict=True):
        assert torch.equal(found.probabilities, expected.probabilities)
        assert (found.updates, found.resets, found.selected) == (expected.updates, expected.resets, expected.selected)
    ordered = {key: states[-1][key] for key in run.states[-1]}
    assert ordered.keys() == states[-1].keys()
    assert digest(ordered) == digest(run.states[-1])
    _, first = again.adapt_batch(again.reset(), batches[0])
    assert torch.equal(first.probabilities, run.steps[0].probabilities)


@every_pair
def test_every_state_moves_on_this_stream_so_that_the_tests_above_say_something(name: str, net: str) -> None:
    states = recorded(name, net).states
    assert not states[0] or digest(states[0]) != digest(states[-1])


@every_pair
def test_memory_is_constant_from_the_10th_to_the_300th_window(name: str, net: str) -> None:
    method = method_of(name, net)
    states, _ = follow(method, method.reset(), torch.split(some_windows(NETS[net], 300), [10, 30, 60, 100, 100]))
    kinds = [{key: (value.dtype, value.shape) for key, value in state.items()} for state in (states[1], states[-1])]
    assert kinds[0] == kinds[1]
    assert state_bytes(states[1]) == state_bytes(states[-1])


@every_pair
def test_constant_input_and_equal_windows_give_finite_answers_then_and_later(name: str, net: str) -> None:
    spec, method = NETS[net], method_of(name, net)
    normal = some_windows(spec, 9)
    shape = (8, spec.channels, spec.length)
    constant = torch.linspace(-2, 2, spec.channels)[:, None].expand(shape).contiguous()
    batches = (torch.zeros(shape), constant, normal[:1].repeat(8, 1, 1), constant[:1], normal[:1] * 1e6, normal[1:])
    for state in (method.reset(), recorded(name, net).states[-1]):
        _, steps = follow(method, state, batches)
        for step, batch in zip(steps, batches, strict=True):
            check_answers(step, len(batch), spec.classes)


@every_pair
def test_what_it_adapts_are_tensors_of_the_network(name: str, net: str) -> None:
    adapts = method_of(name, net).adapts
    assert set(adapts) <= set(Network(source(NETS[net])).tensors)
    assert len(set(adapts)) == len(adapts)


@every_method
def test_a_network_without_batch_norm_is_refused(name: str) -> None:
    bare = nn.Sequential(nn.Flatten(), nn.Linear(CONV.channels * CONV.length, CONV.classes)).eval()
    with pytest.raises(NotAdaptable, match="BatchNorm"):
        made(name, CONV, bare)


@every_method
def test_a_network_without_a_linear_layer_is_refused(name: str) -> None:
    headless = nn.Sequential(nn.BatchNorm1d(CONV.channels), nn.AdaptiveAvgPool1d(1), nn.Flatten()).eval()
    with pytest.raises(NotAdaptable, match="Linear"):
        made(name, CONV, headless)


@pytest.mark.parametrize(("name", "net"), sorted(NOT_ADAPTABLE))
def test_a_method_that_could_do_nothing_on_this_network_says_so_instead_of_answering_as_the_source(
    name: str, net: str
) -> None:
    with pytest.raises(NotAdaptable, match="without a time axis"):
        made(name, NETS[net])


@every_method
def test_an_empty_selection_of_layers_is_refused(name: str) -> None:
    kind: Any = type(method_of(name, "conv1d"))
    nothing = (False,) * CONV.layers
    parameters = inspect.signature(kind).parameters
    if "layers" in parameters:
        with pytest.raises(ConfigError, match="layers"):
            kind(context_of(CONV), layers=nothing)
    elif "LeanSettings" in str(parameters.get("settings")):
        with pytest.raises(ConfigError, match="layers"):
            kind(context_of(CONV), settings=LeanSettings(tau=0.5, lam=1.0, layers=nothing))


@every_pair
def test_behind_the_guards_it_keeps_its_promises(name: str, net: str) -> None:
    spec, batches = NETS[net], torch.split(some_windows(NETS[net], 81), [64, 8, 1, 8])
    guarded, again = (Guarded(made(name, spec), context_of(spec)) for _ in range(2))
    states, steps = follow(guarded, guarded.reset(), batches)
    loaded, later = follow(again, load(save(dict(states[2]))), batches[2:])
    for step, batch in zip(steps, batches, strict=True):
        check_answers(step, len(batch), spec.classes)
    assert all(torch.equal(a.probabilities, b.probabilities) for a, b in zip(steps[2:], later, strict=True))
    assert digest({key: loaded[-1][key] for key in states[-1]}) == digest(states[-1])
    assert state_bytes(states[0]) == state_bytes(states[-1])
    _, _, record = guarded.transact(guarded.reset(), some_windows(spec, 200, seed=1)[96:160])
    assert "not_finite" not in record.reasons


def check_broken_windows(method: Method, spec: NetworkSpec) -> None:
    """Check that broken windows get the source's answer, filled, and that all else is as if they had not come."""
    windows, broken = some_windows(spec, 48), torch.tensor([3, 4, 10])
    batches = [windows[:16], windows[16:28].clone(), windows[28:31] * torch.nan, windows[31:]]
    for row, value in zip(broken.tolist(), (torch.nan, torch.inf, -torch.inf), strict=True):
        batches[1][row, 0, -1] = value
    sane = torch.ones(12, dtype=torch.bool).index_fill(0, broken, False)
    states, steps = follow(method, method.reset(), batches)
    expected_states, expected = follow(method, method.reset(), [batches[0], batches[1][sane], batches[3]])
    for step, batch in zip(steps, batches, strict=True):
        check_answers(step, len(batch), spec.classes)
    filled = InputSanity(context_of(spec)).fill(torch.cat([batches[1][broken], batches[2]]))
    with torch.no_grad():
        by_source = torch.softmax(source(spec)(filled), dim=1)
    found = torch.cat([steps[1].probabilities[broken], steps[2].probabilities])
    torch.testing.assert_close(found, by_source, atol=1e-6, rtol=0)
    torch.testing.assert_close(steps[1].probabilities[sane], expected[1].probabilities)
    torch.testing.assert_close(steps[3].probabilities, expected[2].probabilities)
    torch.testing.assert_close(dict(states[-1]), dict(expected_states[-1]))


@every_pair
def test_behind_the_guards_broken_windows_get_the_source_s_answer_and_leave_no_trace(name: str, net: str) -> None:
    check_broken_windows(Guarded(made(name, NETS[net]), context_of(NETS[net])), NETS[net])


@pairs(("policy", "same-loss-sgd", *VARIANTS))
def test_some_themselves_give_broken_windows_the_source_s_answer_and_they_leave_no_trace(name: str, net: str) -> None:
    check_broken_windows(method_of(name, net), NETS[net])


def alarms_within_3_batches(method: Method, state: State, spec: NetworkSpec) -> bool:
    guard, batches = DiversityGuard(spec.classes), torch.split(some_windows(spec, 200, seed=1)[96:192], 32)
    averages, alarms = guard.start(), False
    for batch, step in zip(batches, follow(method, state, batches)[1], strict=True):
        with torch.no_grad():
            healthy = torch.softmax(source(spec)(batch), dim=1)
        averages, found = guard.observe(averages, step.probabilities, healthy)
        alarms |= bool(found.alarms)
    return alarms


@pairs(set(METHODS) - DIFFERENT)
def test_a_healthy_method_on_source_windows_is_no_collapse(name: str, net: str) -> None:
    method = method_of(name, net)
    assert not alarms_within_3_batches(method, method.reset(), NETS[net])


@every_pair
def test_a_collapsed_model_is_detected_within_3_batches(name: str, net: str) -> None:
    spec = NETS[net]
    collapsed = copy.deepcopy(source(spec))
    collapsed.get_parameter(f"blocks.{spec.layers - 1}.norm.weight").zero_()  # every window has the same features
    method = made(name, spec, collapsed)
    assert alarms_within_3_batches(method, method.reset(), spec)


@pairs(set(METHODS) - AVERAGED)
def test_a_state_that_collapsed_is_detected_within_3_batches(name: str, net: str) -> None:
    spec, method = NETS[net], method_of(name, net)
    last = f"blocks.{spec.layers - 1}.norm.weight"
    if last not in method.adapts or not method.reset():  # generated anew for each batch, there is no state to collapse
        return
    state = dict(recorded(name, net).states[-1])
    found = [key for key in state if key.endswith(last)]
    assert found  # what it adapts is in its state
    state.update({key: torch.zeros_like(state[key]) for key in found})
    assert alarms_within_3_batches(method, state, spec)


@pairs(STATELESS)
def test_a_stateless_method_keeps_nothing_and_a_window_s_neighbours_do_not_matter(name: str, net: str) -> None:
    method, windows = method_of(name, net), some_windows(NETS[net], 12)
    assert method.stateless
    state, whole = method.adapt_batch(method.reset(), windows)
    assert not method.reset()
    assert not state
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    singles = [method.adapt_batch({}, window[None])[1].probabilities for window in windows]
    shuffled = method.adapt_batch({}, windows[order])[1].probabilities
    torch.testing.assert_close(torch.cat(singles), whole.probabilities, atol=1e-5, rtol=0)
    torch.testing.assert_close(shuffled, whole.probabilities[order], atol=1e-5, rtol=0)


@every_method
def test_statelessness_is_promised_by_the_methods_that_have_it_and_by_no_other(name: str) -> None:
    assert method_of(name, "conv1d").stateless == (name in STATELESS)
