"""What a fleet would answer with a bundle, kind by kind, to the stream of one device.

source                  as a worker in mode ``always``: adapted where the shift reaches the threshold
mgg, generalizeformer   the bundle's own engine on batches of 64 windows in time order, from a fresh device; what is
                        left of a last batch gets the plain source, as do batches beyond the range of meta-training
cta                     as the evaluation runs it, in batches of 64 from the aligned encoder

Two things differ from an agent that runs a generator or CTA: windows that no working sensor sends are not left out
first (validation sets hold none), and CTA knows the source by the windows in its canary.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from acclimate.adaptation.generators.engine import MggEngine
from acclimate.adaptation.generators.valid_range import LEAST_WINDOWS
from acclimate.registry.bundles.any_bundle import AnyBundle
from acclimate.registry.bundles.generator_bundle import GeneratorBundle
from acclimate.registry.bundles.source_bundle import Bundle
from acclimate.registry.gates.answers import Answers
from acclimate.streams.serving.served import Served, serve

__all__ = ["Answerer", "make_answerer"]

FloatArray = npt.NDArray[np.float32]
Answerer = Callable[[FloatArray], Answers]

_BATCH = 64


def make_answerer(bundle: AnyBundle, source: Bundle) -> Answerer:
    """Return what answers the windows (n, C, L) of one device in time order; it has passed its self-test here.

    Args:
        bundle: Whose answers are wanted.
        source: That it runs with; itself for a source.

    Raises:
        ContractError: It was made for another source, or fails its self-test on this machine.
    """
    served = serve(source, "always")
    if isinstance(bundle, Bundle):
        return lambda windows: _worker(served, windows)
    bundle.check_source(source.digest, source.spec)
    if isinstance(bundle, GeneratorBundle):
        engine = bundle.engine()

        def generated(windows: FloatArray) -> Answers:
            plain = _worker(served, windows).plain
            answered, state = plain.copy(), engine.start() if isinstance(engine, MggEngine) else {}
            for start in range(0, len(windows) - LEAST_WINDOWS + 1, LEAST_WINDOWS):
                rows = slice(start, start + LEAST_WINDOWS)
                if isinstance(engine, MggEngine):
                    state, made = engine.step(state, windows[rows])
                else:
                    made = engine.generate(windows[rows])
                answered[rows] = made.probabilities
            return Answers(answered, plain)

        return generated

    import torch

    from acclimate.adaptation.evaluation.run import run_stream
    from acclimate.adaptation.method import SourceContext
    from acclimate.adaptation.methods.cta import Cta
    from acclimate.adaptation.model.nets import from_tensors
    from acclimate.streams.lab.making.aligned_model import aligned_of

    known = torch.from_numpy(np.array(bundle.canary["windows"]))
    labels = torch.zeros(len(known), dtype=torch.int64)  # not looked at
    method = Cta(SourceContext(from_tensors(source.spec, source.tensors), known, labels), aligned_of(bundle, source))

    def aligned(windows: FloatArray) -> Answers:
        found = run_stream(method, windows, _BATCH, lambda: 0.0)
        return Answers(found.probabilities, _worker(served, windows).plain)

    return aligned


def _worker(served: Served, windows: FloatArray) -> Answers:
    outputs = served.engine.run(windows)
    return Answers(served.probabilities(outputs), outputs.source_probabilities)
