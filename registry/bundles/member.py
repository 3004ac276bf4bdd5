"""The entry of one bundle in a release, and the set of bundles that serve together."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from acclimate.registry.bundles.manifest import MANIFEST_FILE
from acclimate.registry.canonical import Digest, Extensible, Name, added

__all__ = ["KINDS", "BundleSet", "FileName", "Kind", "Member", "known_kind"]

Kind = Literal["source", "mgg", "generalizeformer", "cta"]
KINDS: tuple[Kind, ...] = ("source", "mgg", "generalizeformer", "cta")
# One name in one folder: no separator, no leading dot.
FileName = Annotated[str, Field(pattern=r"^[a-z_]{1,40}\.(json|sig|safetensors|onnx)$")]


def known_kind(name: str) -> Kind | None:
    """Return the kind with this name; None for one that only newer versions know."""
    return next((kind for kind in KINDS if kind == name), None)


class Member(Extensible):
    """One bundle of a set.

    Attributes:
        name, version: The registered model and its version.
        files: The SHA-256 of every file; that of the manifest is the bundle's digest.
        network_sha256: The digest of the network's description; None where the weights fit any network.
        source_sha256: The digest of the source bundle that it was made for; None for a source.
        code_contract_version: The code contract version that the bundle needs, from its manifest.
    """

    name: Name
    version: Annotated[int, Field(ge=1)]
    files: Annotated[dict[FileName, Digest], Field(min_length=2, max_length=16)]
    network_sha256: Digest | None
    source_sha256: Digest | None
    code_contract_version: Annotated[int, Field(ge=1)] = added(1)

    @property
    def digest(self) -> str:
        """The bundle's digest."""
        return self.files[MANIFEST_FILE]

    @model_validator(mode="after")
    def _has_a_manifest(self) -> "Member":
        if MANIFEST_FILE not in self.files:
            raise ValueError(f"a bundle without {MANIFEST_FILE}")
        return self


# A kind that only newer versions know is kept and shown; nobody here runs it.
BundleSet = dict[Kind | Name, Member]
