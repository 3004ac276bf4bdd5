"""Digests of source code, to tell apart what different states of it made."""

import hashlib
from pathlib import Path

import adaptation

__all__ = ["ALIGNMENT_CODE", "CHOICE_CODE", "GENERATOR_CODE", "POLICY_CODE", "SOURCE_CODE", "code_digest"]

# What a source model, a choice of recipe and a policy's settings are made by: changes elsewhere leave them valid.
SOURCE_CODE = ("train.py", "batch_norms.py", "augment.py", "nets.py", "spec.py")
CHOICE_CODE = (*SOURCE_CODE, "robust.py", "corruptions.py", "corruption_kinds.py")
POLICY_CODE = (
    *CHOICE_CODE,
    "policy_calibration.py",
    "methods/policy*.py",
    "methods/prototypes.py",
    "methods/moments.py",
    "methods/network.py",
    "guards/diversity.py",
    "guards/input_sanity.py",
)
GENERATOR_CODE = (
    *SOURCE_CODE,
    "corruptions.py",
    "corruption_kinds.py",
    "robust.py",
    "generators/*.py",
    "methods/network.py",
    "methods/optimizers.py",
    "methods/groups.py",
    "methods/losses.py",
)
ALIGNMENT_CODE = (
    *SOURCE_CODE,
    "alignment/*.py",
    "methods/network.py",
    "methods/source_units.py",
    "methods/sensor_augmentations.py",
)

_ROOT = Path(adaptation.__file__).parent


def code_digest(patterns: tuple[str, ...] = ("**/*.py",)) -> str:
    """Return 12 hexadecimal digits of the files of `adaptation` that these patterns name; all of them by default."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in _ROOT.glob(pattern)}):
        digest.update(str(path.relative_to(_ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()[:12]
