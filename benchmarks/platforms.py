"""Which extra installs from wheels alone on which platform, and how large it is: ``python -m benchmarks.platforms``.

It asks the package index for the newest versions that ``pyproject.toml`` allows, for another platform than this one,
and prints the table of ``docs/device.md``. A package of pure Python has a wheel for all. Sizes are downloads.
"""

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHON = "3.13"
# What people call it, and the tags of wheels that its C library runs, newest first.
PLATFORMS = {
    "Linux x86-64 (glibc)": ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux2014_x86_64"),
    "Linux aarch64 (glibc)": ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64"),
    "Linux armv7 (glibc)": ("manylinux_2_31_armv7l", "manylinux2014_armv7l"),
    "Alpine x86-64 (musl)": ("musllinux_1_2_x86_64", "musllinux_1_1_x86_64"),
    "Alpine aarch64 (musl)": ("musllinux_1_2_aarch64", "musllinux_1_1_aarch64"),
    "Alpine armv7 (musl)": ("musllinux_1_2_armv7l", "musllinux_1_1_armv7l"),
    "macOS arm64": ("macosx_14_0_arm64", "macosx_11_0_arm64"),
    "Windows x86-64": ("win_amd64",),
}
EXTRAS = ("device", "edge", "worker")


def requirements(extra: str) -> list[str]:
    """Return what an extra installs by itself, the extras that it includes as well."""
    found = []
    for text in PROJECT["optional-dependencies"][extra]:
        requirement = Requirement(text)
        nested = requirement.extras if requirement.name == "acclimate" else ()
        found += [each for name in nested for each in requirements(name)] if nested else [text]
    return found


def command(extra: str, tags: tuple[str, ...]) -> list[str]:
    """Return the command that fails where a wheel is missing."""
    platforms = [part for tag in tags for part in ("--platform", tag)]
    wanted = [*PROJECT["dependencies"], *requirements(extra)]
    return ["pip", "download", "-q", "--only-binary=:all:", "--python-version", PYTHON, *platforms, *wanted]


def asked(extra: str, tags: tuple[str, ...]) -> str:
    """Return the size of the downloads in MB, or the first package that has no wheel."""
    with tempfile.TemporaryDirectory() as folder:
        run = [sys.executable, "-m", *command(extra, tags), "--disable-pip-version-check", "-d", folder]
        done = subprocess.run(run, capture_output=True, text=True, check=False)
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
    if done.returncode == 0:
        return f"{size / 1e6:.0f} MB"
    missing = [line.rpartition(" for ")[2] for line in done.stderr.splitlines() if "No matching distribution" in line]
    return f"no wheel: {Requirement(missing[0]).name}" if missing else done.stderr.strip()[-200:]


def main() -> None:
    """Print the table, and one of the commands as JSON to repeat by hand."""
    print(f"| Python {PYTHON} | {' | '.join(f'`acclimate[{extra}]`' for extra in EXTRAS)} |")
    print(f"|---|{'---|' * len(EXTRAS)}")
    for name, tags in PLATFORMS.items():
        print(f"| {name} | {' | '.join(asked(extra, tags) for extra in EXTRAS)} |", flush=True)
    print(json.dumps(command("device", PLATFORMS["Linux armv7 (glibc)"])), file=sys.stderr)


if __name__ == "__main__":
    main()
