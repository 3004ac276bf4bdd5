"""Gate ``contract``: does the bundle fit what is in force, and what devices send?"""

from collections.abc import Mapping

from acclimate.adaptation.errors import ContractError
from acclimate.registry.bundles.any_bundle import AnyBundle, made_for
from acclimate.registry.bundles.source_bundle import Bundle
from acclimate.registry.releases.verdict import Finding

__all__ = ["contract"]


def contract(bundle: AnyBundle, source: Bundle | None, in_force: Bundle | None, offered: Mapping[str, str]) -> Finding:
    """Check a bundle, whole in itself, against what it would run with.

    Args:
        bundle: The candidate.
        source: The source bundle that it runs with; None where the one it was made for is not offered.
        in_force: The source in force; None where there is none.
        offered: Digest of each source that it could be made for, by what that is.
    """
    network, wanted = made_for(bundle)
    if source is None:
        there = ", ".join(f"{what} {digest[:12]}" for what, digest in offered.items()) or "none"
        return _failed(
            f"made for source {(wanted or 'none')[:12]}, found {there}; register that source first, or make the "
            f"{bundle.manifest.kind} for one of these"
        )
    if isinstance(bundle, Bundle):
        problems = [] if in_force is None else _differences(bundle, in_force)
        if problems:
            return _failed("; ".join(problems))
    else:
        try:
            bundle.check_source(source.digest, source.spec)
        except ContractError as error:
            return _failed(str(error))
        known = source.manifest.compatibility.network_sha256
        if network is not None and network != known:
            return _failed(f"made for network {network[:12]}, its source has {known[:12]}")
    what = "fits the windows and classes in force" if in_force else "nothing is in force that it must fit"
    return Finding(
        gate="contract",
        outcome="passed",
        message=what if isinstance(bundle, Bundle) else f"made for source {source.digest[:12]}",
        figures={"bundle": bundle.digest, "source": source.digest},
    )


def _failed(message: str) -> Finding:
    return Finding(gate="contract", outcome="failed", message=message[:1000])


def _differences(bundle: Bundle, in_force: Bundle) -> list[str]:
    """Say what devices and readers of answers would notice: other windows asked for, other classes answered."""
    one, other = bundle.manifest, in_force.manifest
    pairs = (
        ("samples per window", bundle.spec.length, in_force.spec.length),
        ("channels", list(one.channel_names), list(other.channel_names)),
        ("classes", list(one.class_names), list(other.class_names)),
    )
    return [f"{what}: expected {wanted} as in force, found {found}" for what, found, wanted in pairs if found != wanted]
