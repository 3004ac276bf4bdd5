"""One form for all that is signed or named by its digest: strict pydantic models, written as canonical JSON.

What is signed outlives the code that signed it, so its models grow: a field that comes later is left out of the text at
its default, and a reader passes over fields that it does not know, unless the signer says that it must understand them.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from acclimate.adaptation.errors import ContractError

__all__ = [
    "Digest",
    "Extensible",
    "Name",
    "NotUnderstood",
    "Signed",
    "Strict",
    "added",
    "canonical_bytes",
    "canonical_text",
    "parse_canonical",
    "read_canonical",
    "refusing",
]

Name = Annotated[str, Field(min_length=1, max_length=200)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

_Model = TypeVar("_Model", bound="Strict")


class Strict(BaseModel):
    """Base of what people and this machine write: nothing unknown, nothing converted, nothing changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Extensible(Strict):
    """Base of what is signed, and of its parts: a reader passes over fields that only newer versions know."""

    model_config = ConfigDict(extra="ignore")


class Signed(Extensible):
    """Base of a whole statement.

    Attributes:
        must_understand: Names of fields of this statement; a reader that does not know one of them refuses it.
    """

    must_understand: Annotated[tuple[Name, ...], Field(max_length=16, exclude_if=lambda names: not names)] = ()


class NotUnderstood(ContractError):
    """A statement whose signer requires an understanding of fields that this version does not know.

    Args:
        message: The text about what was expected and what came.
        statement: What this version understands of it.
    """

    def __init__(self, message: str, statement: Signed) -> None:
        super().__init__(message)
        self.statement = statement


def added(default: Any) -> Any:
    """Declare a field of a signed model that came after version 0.1, which compares the whole text with its own.

    The text leaves the field out at its default, so older versions read what uses nothing new, and every text, digest
    and signature from before stays what it was.
    """
    return Field(default=default, exclude_if=lambda value: value == default)


def canonical_bytes(model: Strict) -> bytes:
    """Return the one text of these values: sorted keys, ASCII, one space of indentation, a line end."""
    return canonical_text(model.model_dump(mode="json"))


def canonical_text(values: Mapping[str, Any]) -> bytes:
    """Return the one text of a JSON object."""
    return json.dumps(values, sort_keys=True, indent=1, ensure_ascii=True, allow_nan=False).encode() + b"\n"


def parse_canonical(kind: type[_Model], raw: bytes, what: str) -> _Model:
    """Return the values with this text; see `read_canonical`."""
    return read_canonical(kind, raw, what)[0]


def read_canonical(kind: type[_Model], raw: bytes, what: str) -> tuple[_Model, dict[str, Any]]:
    """Return the values with this text, and all that the text says, fields that this version does not know included.

    Args:
        kind: The model to read.
        raw: The text.
        what: The name of the text in messages.

    Raises:
        ContractError: A value does not fit, or the text is another form of the values than `canonical_text` gives.
        NotUnderstood: The statement lists a field in ``must_understand`` that this version does not know.
    """
    with refusing(what):
        model = kind.model_validate_json(raw)
    try:
        values: dict[str, Any] = json.loads(raw)
        is_canonical = canonical_text(values) == raw
    except (ValueError, RecursionError):
        is_canonical = False
    if not is_canonical:
        raise ContractError(f"{what}: expected canonical JSON as written by acclimate, found another form of it")
    if isinstance(model, Signed) and (unknown := sorted(set(model.must_understand) - set(kind.model_fields))):
        names = ", ".join(unknown)[:200]
        raise NotUnderstood(
            f"{what}: made for versions that understand {names}, this one does not; update acclimate", model
        )
    return model, values


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Say what pydantic refuses inside as a `ContractError` about ``what``, in one line.

    >>> with refusing("a file"):
    ...     Strict.model_validate_json("[]")
    Traceback (most recent call last):
    acclimate.adaptation.errors.ContractError: a file: the file: Input should be an object
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
