"""Load the recordings that data options select, or simulate a fleet."""

from pathlib import Path

from acclimate.adaptation.data.dataset import Dataset
from acclimate.adaptation.data.load import load
from acclimate.adaptation.data.selectors import parse_integers
from acclimate.adaptation.data.simulate import simulate_fleet
from acclimate.adaptation.errors import ConfigError

__all__ = ["SIMULATION_SEED", "selected_dataset"]

SIMULATION_SEED = 0  # of the fleet that studies simulate where there are no recordings


def selected_dataset(
    seed: int,
    *,
    data: Path | None = None,
    label: str | None = None,
    source: tuple[str, ...] = (),
    target: tuple[str, ...] = (),
    group: str | None = None,
    channels: str | None = None,
    target_channels: str | None = None,
    transform: str | None = None,
    order: str | None = None,
) -> Dataset:
    """Load what the options select, or simulate a fleet from ``seed``.

    Raises:
        ConfigError: Options contradict each other or do not fit the file.
        DataError: The file's content is wrong.
    """
    if data is None:
        given = {
            "--label": label,
            "--source": source,
            "--target": target,
            "--group": group,
            "--channels": channels,
            "--target-channels": target_channels,
            "--transform": transform,
            "--order": order,
        }
        stray = [name for name, value in given.items() if value]
        if stray:
            raise ConfigError(f"{stray[0]} selects from recordings: add --data FILE.npz, or leave it away to simulate")
        return simulate_fleet(seed)
    if not source:
        raise ConfigError("--data needs --source, the rows to train on: --source device=1-5")
    return load(
        data,
        label=label or "y",
        source=";".join(source),
        target=";".join(target) if target else None,
        group=group,
        channels=parse_integers(channels) if channels is not None else None,
        target_channels=parse_integers(target_channels) if target_channels is not None else None,
        transform=transform or "none",
        order=tuple(name.strip() for name in order.split(",")) if order else (),
    )
