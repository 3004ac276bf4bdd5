"""One form for all that is signed or named by its digest: strict pydantic models, written as canonical JSON."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adaptation.errors import ContractError

__all__ = ["Digest", "Name", "Strict", "canonical_bytes", "parse_canonical", "refusing"]

Name = Annotated[str, Field(min_length=1, max_length=200)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

_Model = TypeVar("_Model", bound="Strict")


class Strict(BaseModel):
    """Base of what is signed: nothing unknown, nothing converted, nothing changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def canonical_bytes(model: Strict) -> bytes:
    """Return the one text of these values: sorted keys, ASCII, one space of indentation, a line end."""
    text = json.dumps(model.model_dump(mode="json"), sort_keys=True, indent=1, ensure_ascii=True, allow_nan=False)
    return text.encode() + b"\n"


def parse_canonical(kind: type[_Model], raw: bytes, what: str) -> _Model:
    """Return the values with this text.

    Args:
        kind: The model to read.
        raw: The text.
        what: The name of the text in messages.

    Raises:
        ContractError: A value does not fit, or the text is another form of the values than `canonical_bytes` gives.
    """
    with refusing(what):
        model = kind.model_validate_json(raw)
    if canonical_bytes(model) != raw:
        raise ContractError(f"{what}: expected canonical JSON as written by acclimate, found another form of it")
    return model


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Say what pydantic refuses inside as a `ContractError` about ``what``, in one line.

    >>> with refusing("a file"):
    ...     Strict.model_validate_json("[]")
    Traceback (most recent call last):
    adaptation.errors.ContractError: a file: the file: Input should be an object
    """
    try:
        yield
    except ValidationError as error:
        raise ContractError(f"{what}: {_first_problem(error)}") from error


def _first_problem(error: ValidationError) -> str:
    """Say in one line what is wrong first, and where."""
    problem = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in problem["loc"]) or "the file"
    return f"{where[:200]}: {problem['msg'][:300]}"
