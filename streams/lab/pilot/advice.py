"""Turn findings into advice: the mode to start with, and what could go wrong.

The worker of today answers by the source (``observe``) or by LeanTTA (``always``). It is told ``always`` only if

    (1) at least four source devices were left out of a training; LeanTTA harmed none of them, and cost none of them
        more than two points, be that by chance or not
    (2) where the target has labels, it harmed no device there and gained in the mean; source devices may be so much
        alike that there was nothing to gain on them, so their mean must only not fall by more than half a point
    (3) where it has none, the mean over the source devices is above 0

Everything else, and everything in doubt, is ``observe``: the shifts are measured and the adapted answers logged, while
the source answers.
"""

from collections.abc import Iterable, Mapping

from acclimate.adaptation.methods.policy_calibration import LEAST_DEVICES, MOST_HARM
from acclimate.streams.lab.pilot.findings import Findings
from acclimate.streams.lab.pilot.gains import RUNGS, DeviceScore

__all__ = ["choose_mode", "points", "risks"]

_LARGE_LOSS = 0.10
_TOLERATED = 0.005
_REFUSED = 0.01
_FEW_DEVICES = 5
_SHORT = 200  # windows of a device


def choose_mode(findings: Findings) -> tuple[str, list[str]]:
    """Return ``observe`` or ``always``, and the reasons as sentences."""
    against = []
    expected = findings.expected.get("leantta")
    measured = (findings.measured or {}).get("leantta")
    if not findings.adaptable:
        return "observe", ["LeanTTA does not apply: a row without a time axis has no statistics of its own."]
    if findings.expected_by != "left-out source devices" or expected is None:
        against.append("No source device could be left out, so nothing is known of LeanTTA on a new device.")
    elif expected.devices < LEAST_DEVICES:
        against.append(
            f"Only {expected.devices} source devices could be left out; {LEAST_DEVICES} are the least to trust."
        )
    elif expected.harmed:
        against.append(f"LeanTTA harmed source devices that were left out: {_names(expected.harmed)}.")
    elif expected.worst < -MOST_HARM:
        against.append(f"LeanTTA cost a source device that was left out {points(expected.worst)} points.")
    elif expected.mean < -_TOLERATED or (measured is None and expected.mean <= 0):
        against.append(f"LeanTTA gained nothing on source devices that were left out ({points(expected.mean)} points).")
    if measured is not None:
        if measured.harmed:
            against.append(f"LeanTTA harmed devices of the target: {_names(measured.harmed)}.")
        elif measured.mean <= 0:
            against.append(f"LeanTTA gained nothing on the target ({points(measured.mean)} points in the mean).")
    if against or expected is None:
        return "observe", against
    reasons = [
        f"LeanTTA harmed none of {expected.devices} source devices that were left out "
        f"({points(expected.mean)} points in the mean)."
    ]
    if measured is not None:
        reasons.append(
            f"It harmed none of {measured.devices} devices of the target ({points(measured.mean)} points in the "
            f"mean, {points(measured.worst)} on the worst)."
        )
    return "always", reasons


def risks(findings: Findings) -> list[tuple[str, str]]:
    """Return what could go wrong, as tone (bad, plain) and sentence; the worst first."""
    return [*_harm(findings), *_gate(findings), *_evidence(findings), *_health(findings)]


def points(change: float) -> str:
    """Write a change of accuracy in points, with its sign.

    >>> points(-0.0213), points(0.0001)
    ('−2.1', '±0.0')
    """
    rounded = round(100 * change, 1)
    return "±0.0" if rounded == 0 else f"{rounded:+.1f}".replace("-", "\N{MINUS SIGN}")


def _harm(findings: Findings) -> list[tuple[str, str]]:
    found = []
    devices = findings.devices
    for name, words in {"robust": "The robust source", **RUNGS}.items():
        scores = [score for device in devices if (score := device.score(name)) is not None]
        hurt = [score for score in scores if score.harmed]
        if hurt:
            told = ", ".join(f"{score.device} ({_interval(score)})" for score in hurt)
            versus = "the plain source" if name == "robust" else "the source"
            text = f"{words} harmed {len(hurt)} of {len(devices)} devices, against {versus}: {told}."
            found.append(("bad", _capital(text)))
    left_out = findings.expected_by.startswith("left")
    for name, gain in findings.expected.items():
        if gain.harmed:
            where = "source devices that were left out" if left_out else "simulated shifts"
            text = f"{RUNGS[name]} harmed {len(gain.harmed)} of {gain.devices} {where}: {_names(gain.harmed)}."
            found.append(("bad", _capital(text)))
    return found


def _gate(findings: Findings) -> list[tuple[str, str]]:
    policy, devices = findings.policy, findings.devices
    if policy.rung == "source":
        return [
            ("plain", "A source with one device proves no rung; the policy never adapts and reports its gate alone.")
        ]
    if not policy.gated:
        text = (
            f"The policy lets {policy.rung} answer without a gate, because source devices proved it. Only its "
            "agreement with the source and its diversity take it back."
        )
        return [("plain", text)]
    opened = [device for device in devices if device.gate.answered > 0]
    if not opened:
        nearest = max(devices, key=lambda device: float(device.gate.largest))
        text = (
            "The gate never opened: no device went farther from the source than its own devices differ from each "
            f"other (the farthest, {nearest.device}, came to {nearest.gate.largest:.2f} of the limit). "
            "The policy gained nothing and cost no accuracy."
        )
        return [("plain", text)]
    shut = len(devices) - len(opened)
    told = f"The gate opened on {len(opened)} of {len(devices)} devices"
    found = [("plain", f"{told}; on the other {shut} the source answers." if shut else f"{told}.")]
    scores = [score for device in opened if (score := device.score("policy")) is not None]
    lost = [score for score in scores if score.change < 0]
    if lost:
        names = ", ".join(f"{score.device} ({points(score.change)})" for score in lost)
        text = (
            f"Behind the open gate accuracy fell on {names}. A gate says that a device is far, not that adapting helps."
        )
        found.append(("bad", text))
    return found


def _evidence(findings: Findings) -> list[tuple[str, str]]:
    found = []
    count = len(findings.source_devices)
    if findings.policy.weak:
        text = (
            "The calibration is weak: fewer than two source devices could be left out, so the gate's limits rest on "
            "one device or on simulated shifts and protect little. Record more devices."
        )
        found.append(("bad", text))
    elif count <= LEAST_DEVICES:
        found.append(("bad", f"There are only {count} source devices: limits and expected ranges rest on as few."))
    if findings.choice is not None and findings.choice.weak:
        found.append(("bad", "How to train was chosen on weak evidence (simulated shifts, or one condition left out)."))
    if findings.sources[findings.recipe].held_out_by != "groups":
        text = (
            "With fewer than five source devices the shift magnitude is calibrated on the end of their own "
            "recordings: new devices look farther away than they are, and held-out accuracy looks better."
        )
        found.append(("plain", text))
    devices = findings.devices
    if findings.measured is None:
        text = "Nothing was measured against the truth on the target: gains are ranges from the source's own devices."
        found.append(("bad", text))
    elif len(devices) < _FEW_DEVICES:
        found.append(("plain", f"Only {len(devices)} target devices: their mean says little of the next one."))
    undecided = {name for gain in (findings.measured or {}).values() if gain for name in gain.undecided}
    if undecided:
        text = (
            f"Too few long stretches to tell harm from chance on {_names(sorted(undecided))}: they count as not harmed."
        )
        found.append(("plain", text))
    short = [device.device for device in devices if device.windows < _SHORT]
    if short:
        found.append(("plain", f"Few windows (under {_SHORT}) from {_names(short)}: their figures are rough."))
    found.append(("plain", "One seed: another training of the same source moves single figures by a point or more."))
    return found


def _health(findings: Findings) -> list[tuple[str, str]]:
    found = []
    broken = [device for device in findings.devices if sum(device.refused.values()) > _REFUSED]
    if broken:
        told = ", ".join(f"{device.device} ({_shares(device.refused)})" for device in broken)
        text = f"Windows that look like a broken sensor: {told}. That is a repair, not a shift to adapt to."
        found.append(("bad", text))
    silent = _silent_losses(findings)
    if silent:
        text = (
            f"On {_names(silent)} most windows lie inside the source's range (magnitude below 1), and yet the source "
            f"is {100 * _LARGE_LOSS:.0f} points or more below its held-out accuracy."
        )
        found.append(("bad", text))
    text = (
        "A small magnitude does not mean health. In our study of simulated faults it saw 93 of 166 costly ones by "
        "single windows; it is close to blind for lost channels, saturation, turned axes and swapped channels, and "
        "what makes a signal quieter looks closer to the source than clean windows do (docs/shift-magnitude.md). "
        "Label some windows of every device from time to time."
    )
    return [*found, ("plain", text)]


def _silent_losses(findings: Findings) -> list[str]:
    expected = findings.sources[findings.recipe].held_out_accuracy
    return [
        device.device
        for device in findings.devices
        if device.shift.median < 1.0
        and (score := device.score("robust")) is not None
        and score.accuracy < expected - _LARGE_LOSS
    ]


def _interval(score: DeviceScore) -> str:
    return f"{points(score.change)}, 95 % interval {points(score.low)} to {points(score.high)}"


def _shares(refused: Mapping[str, float]) -> str:
    return ", ".join(f"{reason.replace('_', ' ')} {100 * share:.0f} %" for reason, share in refused.items())


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _names(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
