"""A bundle that is ready to answer, and which of them answers a device under a release."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt
import orjson

from acclimate.adaptation.engine.engine import CODE_CONTRACT_VERSION, Engine, Outputs
from acclimate.adaptation.errors import ContractError
from acclimate.adaptation.lean.lean_settings import LeanSettings
from acclimate.adaptation.model.spec import NetworkSpec
from acclimate.registry.bundles.any_bundle import AnyBundle
from acclimate.registry.bundles.member import BundleSet
from acclimate.registry.bundles.source_bundle import Bundle
from acclimate.registry.releases.mode import served_mode
from acclimate.registry.releases.release import Release, unit_hash
from acclimate.streams.wire.messages import Receipt

__all__ = ["InForce", "Loaded", "Served", "canonical", "config_digest", "in_force_of", "make_receipt", "rungs", "serve"]


def config_digest(mode: str, settings: LeanSettings) -> str:
    """Return the SHA-256 of everything configured that an answer depends on."""
    return hashlib.sha256(canonical({"mode": mode, "leantta": asdict(settings)})).hexdigest()


@dataclass(frozen=True)
class Served:
    """One bundle, ready to answer.

    Args:
        engine: Self-tested.
        spec: The network that the engine runs.
        class_names: One name per class.
        receipt: What every output names.
        sampling_rate_hz: The rate that the model takes; None takes any.
        step_samples: Samples from window to window in its training, where they are known.
    """

    engine: Engine
    spec: NetworkSpec
    class_names: Sequence[str]
    receipt: Receipt
    sampling_rate_hz: float | None = None
    step_samples: int | None = None

    def adapts(self, magnitude: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        """Return (n,) which windows LeanTTA answers: those whose shift magnitude (n,) reaches the threshold.

        The source answers the others, and every window in another mode than ``always`` or where LeanTTA does not apply.
        """
        if not self.spec.adaptable or self.receipt.mode != "always":
            return np.zeros(magnitude.shape, dtype=np.bool_)
        # In float64, like the threshold: as float32 it could lie on the other side of a magnitude.
        return magnitude.astype(np.float64) >= self.engine.settings.threshold

    def probabilities(self, outputs: Outputs) -> npt.NDArray[np.float32]:
        """Return the probabilities (n, classes) that answer the windows."""
        adapted = self.adapts(outputs.magnitude)[:, None]
        return np.where(adapted, outputs.adapted_probabilities, outputs.source_probabilities)


def rungs(adapts: npt.NDArray[np.bool_]) -> list[str]:
    """Return the name of the rung that answers each window, from what `Served.adapts` gives."""
    return ["leantta" if adapted else "source" for adapted in adapts]


@dataclass(frozen=True)
class InForce:
    """Who answers which device: the candidate where a hash of the device lies below the share, else the stable one."""

    stable: Served
    candidate: Served | None = None
    salt: str = ""
    share: float = 0.0

    def served(self, device: str) -> Served:
        """Return who answers a device."""
        candidate = self.candidate
        return candidate if candidate is not None and unit_hash(self.salt, device) < self.share else self.stable


def serve(bundle: Bundle, mode: str, epoch: int = 0) -> Served:
    """Return a bundle ready to answer: its graphs have passed their self-test on this machine.

    Args:
        bundle: A bundle of kind ``source``.
        mode: ``observe`` or ``always``.
        epoch: The epoch of the release that it belongs to; 0 where it was given by hand.

    Raises:
        ContractError: The graphs do not load, do not fit the manifest or miss the canary's expected outputs, or this
            version does not serve the mode.
    """
    served_mode(mode, f"bundle {bundle.digest[:12]}")
    engine = bundle.engine()
    manifest = bundle.manifest
    receipt = make_receipt(bundle.digest, engine, mode, epoch)
    return Served(engine, bundle.spec, manifest.class_names, receipt, manifest.sampling_rate_hz, manifest.step_samples)


def make_receipt(bundle: str, engine: Engine, mode: str, epoch: int = 0) -> Receipt:
    """Return the receipt of a worker that serves ``bundle`` (digest) without an adapter."""
    return Receipt.model_validate(
        {
            "bundle": bundle,
            "adapter": None,
            "epoch": epoch,
            "mode": mode,
            "config": config_digest(mode, engine.settings),
            "code_contract_version": CODE_CONTRACT_VERSION,
            "engine": engine.version,
            "instruction_set": engine.instruction_set,
        }
    )


@dataclass(frozen=True)
class Loaded:
    """A release and its bundles, by digest, of the kinds that a receiver uses."""

    release: Release
    bundles: Mapping[str, AnyBundle]


def in_force_of(loaded: Loaded) -> InForce:
    """Return who answers which device under a release, each set in its mode.

    Raises:
        ContractError: A bundle fails its self-test on this machine, or this version does not serve a mode.
    """
    release = loaded.release
    if not release.stable:
        raise ContractError(f"release: epoch {release.epoch} has no stable set")
    bundle = _source(loaded, release.stable)
    stable = serve(bundle, release.stable_mode, release.epoch)
    if not release.candidate:
        return InForce(stable)
    other = _source(loaded, release.candidate)
    if other.digest == bundle.digest:  # the sets differ in mode: one engine serves both
        mode = served_mode(release.candidate_mode, f"bundle {bundle.digest[:12]}")
        candidate = replace(stable, receipt=make_receipt(bundle.digest, stable.engine, mode, release.epoch))
    else:
        candidate = serve(other, release.candidate_mode, release.epoch)
    return InForce(stable, candidate, release.salt, release.share)


def _source(loaded: Loaded, bundles: BundleSet) -> Bundle:
    bundle = loaded.bundles[bundles["source"].digest]
    if not isinstance(bundle, Bundle):
        raise ContractError(f"bundle {bundle.digest[:12]}: expected a source, found {bundle.manifest.kind}")
    return bundle


def canonical(value: object) -> bytes:
    """Return JSON that is the same for equal values, whatever the order of their keys."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
