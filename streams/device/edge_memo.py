"""What a device that answers itself must remember in step with what it sent: stored with it, in one transaction."""

from pydantic import ValidationError

from acclimate.adaptation.errors import ConfigError
from acclimate.streams.device.upload_budget import UploadBudget
from acclimate.streams.device.window_requests import RequestPlace
from acclimate.streams.wire.messages import EdgeCounts, Message

__all__ = ["EdgeMemo", "Wanted", "read_memo"]


class Wanted(Message):
    """What is still to be sent of a request: windows ``first`` to ``last`` of a session."""

    session: str
    first: int
    last: int


class EdgeMemo(Message):
    """Counts, the budget, and where the device stands with its requests.

    Attributes:
        counts: What became of the windows.
        bytes_per_day, budget_left, budget_at_ms: See `acclimate.streams.device.upload_budget.UploadBudget`.
        requests_partition, requests_offset: Where it reads on; None where it has not read yet.
        wanted: Requests that are not done, in the order in which they came.
    """

    counts: EdgeCounts = EdgeCounts()
    bytes_per_day: int
    budget_left: int
    budget_at_ms: int
    requests_partition: int | None = None
    requests_offset: int | None = None
    wanted: tuple[Wanted, ...] = ()

    @property
    def budget(self) -> UploadBudget:
        """The budget as it was left."""
        return UploadBudget(self.bytes_per_day, self.budget_left, self.budget_at_ms)

    @property
    def place(self) -> RequestPlace | None:
        """Where the device reads on."""
        if self.requests_partition is None or self.requests_offset is None:
            return None
        return RequestPlace(self.requests_partition, self.requests_offset)

    def plus(self, **counts: int) -> "EdgeMemo":
        """Return the memo with higher counts."""
        raised = {name: getattr(self.counts, name) + more for name, more in counts.items()}
        return self.model_copy(update={"counts": self.counts.model_copy(update=raised)})

    def with_budget(self, budget: UploadBudget) -> "EdgeMemo":
        """Return the memo with another budget."""
        spent = {
            "bytes_per_day": budget.bytes_per_day,
            "budget_left": budget.left,
            "budget_at_ms": budget.at_ms,
        }
        return self.model_copy(update=spent)


def read_memo(text: str | None, bytes_per_day: int, now_ms: int) -> EdgeMemo:
    """Return what was remembered; a new memo where nothing was, with a full budget.

    A budget that was configured anew keeps at most what was left, so that no restart refills it.

    Raises:
        ConfigError: It was written by something else.
    """
    full = UploadBudget.full(bytes_per_day, now_ms)
    if text is None:
        return EdgeMemo(bytes_per_day=bytes_per_day, budget_left=full.left, budget_at_ms=now_ms)
    try:
        memo = EdgeMemo.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"the outbox's memo is not of a device that answers itself: {error}") from error
    left = min(memo.budget_left, full.left)
    return memo.with_budget(UploadBudget(bytes_per_day, left, memo.budget_at_ms))
