"""A simulated fleet of rotating machines, for demos and tests without recordings.

Each machine carries a three-axis MEMS accelerometer (DC coupled, in g) and runs through long stretches of one
condition, as real machines do; faults begin faintly and grow. The six conditions differ in the shape of spectrum and
modulation, with the signatures that handbooks of vibration diagnosis give them:

    normal         residual 1x and 2x of the shaft, broadband process noise
    imbalance      strong 1x, radial, the two radial axes a quarter turn apart
    misalignment   strong 2x with 1x and 3x, much of it axial
    looseness      many harmonics and half orders of changing strength, mostly vertical
    outer_race     impulses at 3.58x that excite a structural resonance, all of equal strength
    inner_race     impulses at 5.42x, whose strength follows the shaft's turn (the fault passes through the load zone)

A device adds something of its own on the way to the number that it publishes. `DeviceShift` declares it:

    published = gain (1 + ageing gain * age) * (rotation @ (vibration + gravity)) + offset + ageing offset * age + noise

with vibration sampled by a clock that is off, and age running from 0 to 1 along the stream. Source devices are mild.
Every target device has one declared dominant shift (one has none and is the control), so that a report can set what a
method gains against what was done to the device. The sizes follow what data sheets and mounting practice admit; they
were not fitted to any method.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from acclimate.adaptation.data.dataset import Dataset, Split
from acclimate.adaptation.errors import ConfigError

__all__ = ["CONDITIONS", "DOMINANT_SHIFTS", "DeviceShift", "FleetPlan", "device_shifts", "simulate_fleet"]

CONDITIONS = ("normal", "imbalance", "misalignment", "looseness", "outer_race", "inner_race")
DOMINANT_SHIFTS = ("none", "gain", "offset", "remounting", "rotation", "noise", "clock", "ageing")

SAMPLING_RATE_HZ = 1600.0
LENGTH = 128

_HARMONIC_ORDERS = np.array([0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0])  # (H,)
# Amplitudes in g at severity 1, per condition, machine axis (horizontal, vertical, axial) and order.
_FAULT_G = np.zeros((len(CONDITIONS), 3, _HARMONIC_ORDERS.size))
_FAULT_G[1, :, 1] = 0.42, 0.42, 0.06
_FAULT_G[1, :, 3] = 0.02, 0.02, 0.0
_FAULT_G[2, :, 1] = 0.12, 0.1, 0.2
_FAULT_G[2, :, 3] = 0.22, 0.2, 0.3
_FAULT_G[2, :, 5] = 0.05, 0.05, 0.08
_FAULT_G[3, 1] = 0.1, 0.2, 0.1, 0.16, 0.08, 0.13, 0.1, 0.08, 0.06
_FAULT_G[3, 0] = 0.5 * _FAULT_G[3, 1]
_FAULT_G[3, 2] = 0.2 * _FAULT_G[3, 1]
_RESIDUAL_G = np.outer([1.0, 0.8, 0.5], [0.0, 0.1, 0.0, 0.05, 0.0, 0.02, 0.01, 0.0, 0.0])  # of every machine
_OUTER_RACE_ORDER = 3.58  # ball passes per turn of a common deep-groove bearing: outer race, inner race
_INNER_RACE_ORDER = 5.42
_GRAVITY_G = np.array([0.0, -1.0, 0.0])  # machine axes: x horizontal, y vertical, z axial


@dataclass(frozen=True)
class DeviceShift:
    """The changes that one machine and its sensor make to the signal; sizes as applied.

    Attributes:
        device: Device id.
        dominant: The one of `DOMINANT_SHIFTS` that was made strong; source devices have ``none``.
        gain: Sensitivity per sensor axis, 1 is nominal.
        offset_g: Zero-g bias per sensor axis, in g.
        rotation_deg: Angle by which the mounting is turned.
        rotation_axis: Unit vector that it is turned about, in machine axes.
        clock_error: Relative error of the sampling clock; 0.02 samples two percent too slowly.
        noise_g: Standard deviation of the sensor's white noise, in g.
        ageing_gain: Relative change of sensitivity from the first to the last window.
        ageing_offset_g: Change of bias from the first to the last window, on every axis, in g.
        shaft_hz: Mean speed of the machine.
        resonance_hz: Structural resonance that bearing impulses excite.
        residual: The factor on the normal residual vibration, per machine axis; 1 is typical.
    """

    device: str
    dominant: str
    gain: tuple[float, float, float]
    offset_g: tuple[float, float, float]
    rotation_deg: float
    rotation_axis: tuple[float, float, float]
    clock_error: float
    noise_g: float
    ageing_gain: float
    ageing_offset_g: float
    shaft_hz: float
    resonance_hz: float
    residual: tuple[float, float, float]


@dataclass(frozen=True)
class FleetPlan:
    """Size of a simulated fleet.

    Attributes:
        source_devices: Machines to train on, at least one.
        target_devices: Machines to stream; dominant shifts are dealt in the order of `DOMINANT_SHIFTS`.
        source_windows: Windows of each source device; at least 40, so that each condition has a stretch.
        target_windows: Windows of each target device.
        strength: Multiplies every dominant shift; 0 makes the targets like the source, 1 is the default fleet.
    """

    source_devices: int = 6
    target_devices: int = 8
    source_windows: int = 1000
    target_windows: int = 1500
    strength: float = 1.0

    def __post_init__(self) -> None:
        if self.source_devices < 1 or self.target_devices < 0:
            raise ConfigError(
                f"expected at least 1 source and 0 target devices, got {self.source_devices} and {self.target_devices}"
            )
        if min(self.source_windows, self.target_windows) < 40:
            raise ConfigError(
                "expected at least 40 windows of each device (all conditions need a stretch), "
                f"got {self.source_windows} and {self.target_windows}"
            )
        if not 0.0 <= self.strength <= 3.0:
            raise ConfigError(f"expected a strength of 0 to 3, got {self.strength}")


def device_shifts(seed: int, plan: FleetPlan = FleetPlan()) -> tuple[DeviceShift, ...]:
    """Draw what each device does to its signal: source devices first, then targets.

    >>> [shift.dominant for shift in device_shifts(0, FleetPlan(1, 3))]
    ['none', 'none', 'gain', 'offset']
    """
    rng = np.random.default_rng([seed, 1])
    shifts = [_mild_device(f"source-{number:02d}", rng) for number in range(1, plan.source_devices + 1)]
    for number in range(plan.target_devices):
        mild = _mild_device(f"target-{number + 1:02d}", rng)
        shifts.append(_strengthen(mild, DOMINANT_SHIFTS[number % len(DOMINANT_SHIFTS)], plan.strength, rng))
    return tuple(shifts)


def simulate_fleet(seed: int, plan: FleetPlan = FleetPlan()) -> Dataset:
    """Simulate the fleet; equal arguments give equal bytes on one machine.

    Windows are (n, 3, 128) in g at 1.6 kHz. `device_shifts` with the same arguments tells what was done to each device.

    >>> fleet = simulate_fleet(0, FleetPlan(1, 1, 40, 40))
    >>> fleet.source.windows.shape, fleet.classes
    ((40, 3, 128), 6)
    """
    shifts = device_shifts(seed, plan)
    source = _simulate_split(seed, shifts[: plan.source_devices], 0, plan.source_windows)
    target = None
    if plan.target_devices:
        target = _simulate_split(
            seed, shifts[plan.source_devices :], plan.source_devices, plan.target_windows, len(source)
        )
    return Dataset(
        name="simulated-fleet",
        source=source,
        target=target,
        channel_names=("acc_x", "acc_y", "acc_z"),
        class_names=CONDITIONS,
        transform="none",
        group_key="device",
        sampling_rate_hz=SAMPLING_RATE_HZ,
        selection={"simulated": "rotating machines", "seed": str(seed), "strength": str(plan.strength)},
    )


def _mild_device(device: str, rng: Generator) -> DeviceShift:
    """Draw a well-installed device: data-sheet tolerances of a good MEMS sensor, mounted to a few degrees."""
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    return DeviceShift(
        device=device,
        dominant="none",
        gain=_triple(np.exp(rng.normal(0.0, 0.05, size=3))),
        offset_g=_triple(rng.normal(0.0, 0.02, size=3)),
        rotation_deg=float(abs(rng.normal(0.0, 3.0))),
        rotation_axis=_triple(axis),
        clock_error=float(rng.normal(0.0, 0.005)),
        noise_g=float(0.02 * np.exp(rng.normal(0.0, 0.2))),
        ageing_gain=float(rng.normal(0.0, 0.02)),
        ageing_offset_g=float(rng.normal(0.0, 0.01)),
        shaft_hz=float(50.0 * (1.0 + rng.normal(0.0, 0.01))),
        resonance_hz=float(520.0 * np.exp(rng.normal(0.0, 0.05))),
        residual=_triple(np.exp(rng.normal(0.0, 0.4, size=3))),
    )


def _strengthen(mild: DeviceShift, dominant: str, strength: float, rng: Generator) -> DeviceShift:
    """Make one shift of a device strong; each device takes the same draws, whatever its shift."""
    sign = float(rng.choice([-1.0, 1.0]))
    spread = float(rng.uniform(0.8, 1.2)) * strength
    signs = rng.choice([-1.0, 1.0], size=3)
    changes: dict[str, object] = {"dominant": dominant if strength > 0 else "none"}
    if dominant in ("gain", "remounting"):
        # A mounting on a magnet or a soft pad, or another full-scale range, changes the sensitivity by factors.
        changes["gain"] = _triple(np.array(mild.gain) * np.exp(sign * 0.8 * spread))
    if dominant in ("offset", "remounting"):
        # Zero-g bias after reflow soldering or a shock, in the upper range that data sheets of cheap sensors admit.
        changes["offset_g"] = _triple(np.array(mild.offset_g) + 0.25 * spread * signs)
    if dominant == "rotation":
        changes["rotation_deg"] = mild.rotation_deg + 50.0 * spread
    if dominant == "noise":
        changes["noise_g"] = mild.noise_g + 0.18 * spread
    if dominant == "clock":
        changes["clock_error"] = mild.clock_error + sign * 0.06 * spread
    if dominant == "ageing":
        changes["ageing_gain"] = mild.ageing_gain - 0.5 * min(spread, 1.8)
        changes["ageing_offset_g"] = mild.ageing_offset_g + sign * 0.3 * spread
    return DeviceShift(**{**mild.__dict__, **changes})


def _simulate_split(seed: int, shifts: Sequence[DeviceShift], first: int, windows: int, first_row: int = 0) -> Split:
    """Simulate devices; each has a random stream of its own, so a fleet can grow without changing its devices."""
    streams = [np.random.default_rng([seed, 2, first + index]) for index in range(len(shifts))]
    parts = [_simulate_device(shift, windows, rng) for shift, rng in zip(shifts, streams, strict=True)]
    count = windows * len(shifts)
    return Split(
        windows=np.concatenate([part[0] for part in parts]),
        labels=np.concatenate([part[1] for part in parts]),
        groups=np.repeat(np.array([shift.device for shift in shifts]), windows),
        rows=np.arange(first_row, first_row + count, dtype=np.int64),
    )


def _simulate_device(shift: DeviceShift, windows: int, rng: Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Give windows (n, 3, L) and labels (n,) of one device in time order."""
    labels, severity = _history(windows, rng)
    clean = _vibration(shift, labels, severity, rng)  # (n, 3, L), machine axes
    turned = np.einsum("ij,njt->nit", _rotation(shift), clean + _GRAVITY_G[:, None])
    age = np.linspace(0.0, 1.0, windows)[:, None, None]
    gain = np.array(shift.gain)[:, None] * (1.0 + shift.ageing_gain * age)  # (n, 3, 1)
    offset = np.array(shift.offset_g)[:, None] + shift.ageing_offset_g * age  # (n, 3, 1)
    noise = rng.normal(0.0, shift.noise_g, size=clean.shape)
    return (gain * turned + offset + noise).astype(np.float32), labels


def _history(windows: int, rng: Generator) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Draw which condition holds when, and how severe it is, each of shape (n,).

    A machine runs normally, develops a fault, is repaired, and so on through all faults in random order: ten stretches,
    a fault about twice as long as the normal time before it. Severity starts low and grows along a stretch.
    """
    faults = rng.permutation(np.arange(1, len(CONDITIONS)))
    sequence = np.stack([np.zeros_like(faults), faults], axis=1).ravel()  # normal, fault, normal, fault, ...
    weights = np.tile([1.0, 2.0], faults.size) * rng.uniform(0.6, 1.4, size=sequence.size)
    lengths = np.maximum(2, np.floor(windows * weights / weights.sum())).astype(np.int64)
    lengths[-1] += windows - lengths.sum()
    labels = np.repeat(sequence, lengths)
    start = np.repeat(rng.uniform(0.2, 0.5, size=sequence.size), lengths)
    growth = np.concatenate([np.linspace(0.0, 0.7, length) for length in lengths])
    return labels, (start + growth) * np.exp(rng.normal(0.0, 0.15, size=windows))


def _vibration(
    shift: DeviceShift, labels: NDArray[np.int64], severity: NDArray[np.float64], rng: Generator
) -> NDArray[np.float64]:
    """Give the machine's own acceleration (n, 3, L) in g."""
    windows = labels.size
    load = 1.0 + 0.01 * np.sin(2 * np.pi * (np.arange(windows) / 180.0 + rng.uniform()))  # slow changes of load
    speed_hz = shift.shaft_hz * load * (1.0 + rng.normal(0.0, 0.003, size=windows))  # (n,)
    time_s = np.arange(LENGTH) * (1.0 + shift.clock_error) / SAMPLING_RATE_HZ  # (L,)
    turns = speed_hz[:, None] * time_s + rng.uniform(size=(windows, 1))  # (n, L)
    signal = _harmonics(labels, severity, turns, np.array(shift.residual), rng)
    for condition, order in (("outer_race", _OUTER_RACE_ORDER), ("inner_race", _INNER_RACE_ORDER)):
        hit = np.flatnonzero(labels == CONDITIONS.index(condition))
        if hit.size:
            impacts = _impacts(turns[hit], speed_hz[hit], order, condition == "inner_race", shift.resonance_hz, rng)
            direction = np.array([0.6, 1.0, 0.25])
            signal[hit] += 0.45 * (severity[hit, None] * impacts)[:, None, :] * direction[:, None]
    process = rng.normal(0.0, 0.06, size=signal.shape)
    # Flow and friction noise has more low than high frequencies: a two-point mean is enough of a low pass.
    process[:, :, 1:] = (process[:, :, 1:] + process[:, :, :-1]) / np.sqrt(2.0)
    return signal + process


def _harmonics(
    labels: NDArray[np.int64],
    severity: NDArray[np.float64],
    turns: NDArray[np.float64],
    residual: NDArray[np.float64],
    rng: Generator,
) -> NDArray[np.float64]:
    """Sum the orders of the shaft: (n, 3, L)."""
    windows, orders = labels.size, _HARMONIC_ORDERS.size
    strength = _FAULT_G[labels] * severity[:, None, None]  # (n, 3, H)
    strength += _RESIDUAL_G * residual[:, None] * np.exp(rng.normal(0.0, 0.2, (windows, 3, 1)))
    loose = labels == CONDITIONS.index("looseness")
    # Contact is lost and found at random: the orders of a loose machine change from window to window.
    strength *= np.where(loose[:, None, None], np.exp(rng.normal(0.0, 0.5, (windows, 1, orders))), 1.0)
    # The radial axes see a turning force a quarter turn apart.
    phase = rng.uniform(size=(windows, 1, orders)) + np.array([0.0, 0.25, 0.5])[:, None]  # (n, 3, H)
    angle = 2 * np.pi * (turns[:, None, :] * _HARMONIC_ORDERS[:, None])  # (n, H, L)
    # cos(angle + phase), with the phase folded into the amplitudes so that each cosine is computed once for three axes.
    shifted = strength * np.exp(2j * np.pi * phase)  # (n, 3, H)
    return np.asarray(shifted.real @ np.cos(angle) - shifted.imag @ np.sin(angle))


def _impacts(
    turns: NDArray[np.float64],
    speed_hz: NDArray[np.float64],
    order: float,
    modulated: bool,
    resonance_hz: float,
    rng: Generator,
) -> NDArray[np.float64]:
    """Ring the resonance once per ball pass: (n, L), about 1 at its peaks.

    Only the last impact is heard: the ringing (decay time 1.5 ms) is gone by the next one (4 to 6 ms later).
    """
    passes = turns * order + rng.uniform(size=(turns.shape[0], 1))  # (n, L)
    number = np.floor(passes).astype(np.int64)
    since_s = (passes - number) / (order * speed_hz[:, None])  # (n, L)
    slip = np.exp(
        rng.normal(0.0, 0.25, size=(turns.shape[0], int(number.max()) + 1))
    )  # balls slide: no two hits are equal
    strength = np.take_along_axis(slip, number, axis=1)
    if modulated:
        strength = strength * (1.0 + 0.9 * np.cos(2 * np.pi * turns))
    return strength * np.exp(-since_s / 0.0015) * np.sin(2 * np.pi * resonance_hz * since_s)


def _rotation(shift: DeviceShift) -> NDArray[np.float64]:
    """Give the rotation matrix about an axis (Rodrigues' formula), (3, 3)."""
    x, y, z = shift.rotation_axis
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    angle = np.deg2rad(shift.rotation_deg)
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * cross @ cross)


def _triple(values: NDArray[np.float64]) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])
