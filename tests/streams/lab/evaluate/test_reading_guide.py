"""The guide must not be wrong about who looks ahead: every method of the catalogue is asked."""

from dataclasses import replace

import pytest
import torch

from acclimate.adaptation.generators.generator import Generator
from acclimate.adaptation.generators.valid_range import ValidRange
from acclimate.adaptation.method import SourceContext
from acclimate.adaptation.methods.catalogue import METHODS, make_method
from acclimate.adaptation.methods.policy_settings import PolicySettings
from acclimate.adaptation.methods.prepared import Prepared
from acclimate.adaptation.model.spec import NetworkSpec
from acclimate.streams.lab.evaluate.reading_guide import SEES_ITS_BATCH, reading_guide
from tests.adaptation.tiny_alignments import drawn_alignments
from tests.adaptation.tiny_generators import drawn_generators
from tests.adaptation.tiny_nets import tones, trained_on_tones

ALWAYS = PolicySettings("statistics+prototypes", False, 1.0, 1.0, 256.0, weak=False)


def narrow(spec: NetworkSpec) -> dict[str, Generator]:
    """Return generators whose range holds the stream below and not what replaces its later windows."""
    return {
        name: replace(each, valid_range=ValidRange(1e30, 1.6)) for name, each in drawn_generators(spec, 0.3).items()
    }


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_listed_if_later_windows_of_a_batch_change_the_answer_to_its_first(name: str) -> None:
    windows, labels = tones(60, seed=2)
    given = 1.7 * torch.from_numpy(tones(384, seed=8)[0]) + 0.3
    model = trained_on_tones()[0]
    context = SourceContext(model, torch.from_numpy(windows), torch.from_numpy(labels), 1)
    method = make_method(name, context, Prepared(ALWAYS, narrow(model.spec), drawn_alignments(context)))
    state, ahead = method.reset(), False
    for start in range(0, 256, 64):
        batch = given[start : start + 64]
        other = torch.cat([batch[:1], -2 * given[320:383]])
        one, two = (method.adapt_batch(state, part)[1].probabilities[0] for part in (batch, other))
        ahead = ahead or not torch.equal(one, two)
        state, _ = method.adapt_batch(state, batch)
    assert ahead == (name in SEES_ITS_BATCH)


def test_the_guide_names_those_that_were_run() -> None:
    guide = " ".join(reading_guide(["source", "policy", "tent", "bn", "tent"]).split())
    assert "before they answer its first: `tent`, `bn`. A device" in guide
    assert "`policy` answers from what it knew" in guide
    assert "none of those below" in reading_guide(["source"])
