"""Work out a year from accuracy, time and prices: plain arithmetic, no statistics.

    windows  = 365 * windows per day and device * devices                                                 (1)
    avoided  = windows * gain                 wrong answers that become right, less those that become wrong (2)
    compute  = windows * seconds per window / 3600 * price of a core hour                                 (3)
    net      = avoided * price of an error - (compute of the rung - compute of the source)                (4)
    labels   = net / price of a label         labels that the net pays for                                (5)
    points   = devices * labels per device * price of a label / (windows * price of an error)             (6)

(6) is the gain in accuracy from which labelling so many windows of each device once a year pays for itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from acclimate.streams.lab.pilot.options import Costs

__all__ = ["LABELS_PER_DEVICE", "LabelPrice", "Yearly", "label_break_even", "yearly"]

LABELS_PER_DEVICE = (20, 100, 500, 2000)


@dataclass(frozen=True)
class Yearly:
    """One way to answer, for a year of the fleet.

    Attributes:
        rung: The rung that answers, or ``robust``.
        by: What its gain is: ``measured`` or ``expected``.
        avoided: The number of wrong answers avoided: likely, and the two ends of the gain's interval where there is
            one.
        worth: The price of those answers.
        compute_hours: The core hours of all answers.
        compute: The price of those hours.
        extra_compute: The same price, less the source's.
        net: Worth less extra compute: likely, and the two ends.
        labels: The number of labels that the likely net pays for; None where labels cost nothing.
    """

    rung: str
    by: str
    avoided: tuple[float, float | None, float | None]
    worth: float
    compute_hours: float
    compute: float
    extra_compute: float
    net: tuple[float, float | None, float | None]
    labels: float | None


@dataclass(frozen=True)
class LabelPrice:
    """Labels of windows, once a year.

    Attributes:
        labels_per_device: The number of labels for each device.
        cost: The price of those of the whole fleet.
        break_even_gain: The gain in accuracy from which they pay for themselves (6); None where errors cost nothing.
    """

    labels_per_device: int
    cost: float
    break_even_gain: float | None


def yearly(
    rung: str,
    by: str,
    costs: Costs,
    gain: Sequence[float | None],
    seconds_per_window: float,
    source_seconds_per_window: float,
) -> Yearly:
    """Work out a year.

    Args:
        rung, by: The rung that answers, and what its gain is.
        costs: Prices and amounts.
        gain: Change in accuracy, -1 to 1: likely, low end, high end.
        seconds_per_window, source_seconds_per_window: The time of one core.

    >>> costs = Costs(label=2, error=0.1, cpu_hour=3.6, windows_per_day=1000, devices=10)
    >>> year = yearly("leantta", "measured", costs, (0.1, 0.0, None), 2e-3, 1e-3)
    >>> [round(value, 6) for value in (year.avoided[0], year.worth, year.compute, year.net[0], year.labels)]
    [365000.0, 36500.0, 7.3, 36496.35, 18248.175]
    """
    windows = costs.windows_per_year  # (1)
    likely, low, high = (None if change is None else windows * change for change in gain)  # (2)
    assert likely is not None  # the first is always a number
    hours = windows * seconds_per_window / 3600.0
    compute = hours * costs.cpu_hour  # (3)
    extra = compute - windows * source_seconds_per_window / 3600.0 * costs.cpu_hour

    def net(avoided: float) -> float:
        return avoided * costs.error - extra  # (4)

    return Yearly(
        rung=rung,
        by=by,
        avoided=(likely, low, high),
        worth=likely * costs.error,
        compute_hours=hours,
        compute=compute,
        extra_compute=extra,
        net=(net(likely), None if low is None else net(low), None if high is None else net(high)),
        labels=net(likely) / costs.label if costs.label > 0 else None,  # (5)
    )


def label_break_even(costs: Costs) -> tuple[LabelPrice, ...]:
    """Give, for several amounts of labels per device and year, their price and the gain from which they pay (6).

    >>> costs = Costs(label=2, error=0.1, cpu_hour=0, windows_per_day=1000, devices=10)
    >>> row = label_break_even(costs)[1]
    >>> row.labels_per_device, row.cost, round(row.break_even_gain, 6)
    (100, 2000, 0.005479)
    """
    error_bill = costs.windows_per_year * costs.error
    rows = []
    for count in LABELS_PER_DEVICE:
        price = count * costs.devices * costs.label
        rows.append(LabelPrice(count, price, price / error_bill if error_bill > 0 else None))
    return tuple(rows)
