"""The arrows that must never be (docs/architecture.md): between packages, between rooms, and to heavy libraries.

Each rule is a function of imports, so that a test can add one forbidden import and see that the rule fails.
"""

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.support.rooms import HOUSES, PACKAGES, ROOT, Import, all_imports, arrows_in, circle, imports_in, rooms_of

Rule = Callable[[Iterable[Import]], list[str]]

MAY_IMPORT = {
    "adaptation": {"adaptation"},
    "infra": {"infra"},
    "registry": {"registry", "adaptation", "infra"},
    "streams": set(PACKAGES),
}
MLFLOW = {"mlflow"}
KAFKA = {"faust", "aiokafka", "kafka"}
CLOCKS = {"os", "time", "random", "logging", "datetime"}
ONLY_UNIX = {"fcntl", "grp", "pwd", "resource", "termios"}
UNSAFE = {"pickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}
# Rooms and the most of them, and of the arrows between them; docs/architecture.md says what each is for.
SIZES = {"adaptation": (16, 46), "registry": (8, 14), "streams": (12, 30)}


def never(here: str, *there: str, but: tuple[str, ...] = ()) -> Rule:
    """Return the rule that no file below a folder imports these modules or folders, except some below them."""
    targets, allowed = [name.replace("/", ".") for name in there], [name.replace("/", ".") for name in but]

    def wrong(imports: Iterable[Import]) -> list[str]:
        return [
            str(each)
            for each in imports
            if each.path.is_relative_to(here)
            and any(each.of(name) for name in targets)
            and not any(each.of(name) for name in allowed)
        ]

    return wrong


def siblings(room: str) -> list[str]:
    house, _, name = room.rpartition("/")
    return [f"{house}/{other.removesuffix('.py')}" for other in rooms_of(house) if other not in (name, "cli.py")]


PACKAGE_RULES = {
    f"{package} imports no package above it": never(package, *sorted(set(PACKAGES) - MAY_IMPORT[package]))
    for package in ("adaptation", "infra", "registry")
}
LIBRARY_RULES = {
    **{f"{package} imports no MLflow": never(package, *MLFLOW) for package in ("adaptation", "infra", "streams")},
    **{f"{package} imports no Kafka client": never(package, *KAFKA) for package in ("adaptation", "registry")},
    "lab imports no Kafka client": never("streams/lab", *KAFKA),
    "serving imports no Kafka client": never("streams/serving", *KAFKA),
    "adaptation reads no clock and no environment": never("adaptation", *CLOCKS),
    **{f"{package} imports no unsafe serializer": never(package, *UNSAFE) for package in PACKAGES},
    **{f"{package} imports nothing that only Unix has": never(package, *ONLY_UNIX) for package in PACKAGES},
}
ROOM_RULES = {
    "wire imports no sibling": never("streams/wire", *siblings("streams/wire")),
    "device imports no agents": never("streams/device", "streams/agents"),
    "audit imports no agents": never("streams/audit", "streams/agents"),
    "audit imports nothing of the lab but its studies": never(
        "streams/audit", "streams/lab", but=("streams/lab/study",)
    ),
    **{
        f"{room} imports no command": never(f"streams/{room}", "streams/commands")
        for room in ("lab", "audit", "agents")
    },
    **{
        f"{room} imports no method": never(f"adaptation/{room}", "adaptation/methods")
        for room in ("guards", "generators", "alignment", "drift")
    },
}
RULES = {**PACKAGE_RULES, **LIBRARY_RULES, **ROOM_RULES}

# One forbidden import for each rule: file, statement.
FORBIDDEN = {
    "adaptation imports no package above it": (
        "adaptation/lean/shift.py",
        "from acclimate.registry.folder import replace_file",
    ),
    "infra imports no package above it": ("infra/settings.py", "import acclimate.adaptation.errors"),
    "registry imports no package above it": ("registry/folder.py", "from acclimate.streams import cli"),
    "adaptation imports no MLflow": ("adaptation/lean/shift.py", "import mlflow.pyfunc"),
    "infra imports no MLflow": ("infra/mlflow_server.py", "from mlflow.server import app"),
    "streams imports no MLflow": ("streams/releases/offers.py", "from mlflow import MlflowClient"),
    "adaptation imports no Kafka client": ("adaptation/lean/shift.py", "import kafka"),
    "registry imports no Kafka client": ("registry/catalogue.py", "from kafka.errors import KafkaError"),
    "lab imports no Kafka client": ("streams/lab/study/jobs.py", "from aiokafka import AIOKafkaProducer"),
    "serving imports no Kafka client": ("streams/serving/served.py", "import faust"),
    "adaptation reads no clock and no environment": ("adaptation/data/simulate.py", "from time import monotonic"),
    **{f"{package} imports no unsafe serializer": (f"{package}/made_up.py", "import pickle") for package in PACKAGES},
    **{
        f"{package} imports nothing that only Unix has": (f"{package}/made_up.py", "import fcntl")
        for package in PACKAGES
    },
    "wire imports no sibling": ("streams/wire/reading.py", "from acclimate.streams.serving.served import Served"),
    "device imports no agents": ("streams/device/edge.py", "from acclimate.streams.agents.adapt import AdaptCore"),
    "audit imports no agents": ("streams/audit/offline.py", "from acclimate.streams.agents.adapt import AdaptCore"),
    "audit imports nothing of the lab but its studies": (
        "streams/audit/report.py",
        "from acclimate.streams.lab.making.source_model import SourceModel",
    ),
    **{
        f"{room} imports no command": (
            f"streams/{room}/made_up.py",
            "from acclimate.streams.commands.shared import data_options",
        )
        for room in ("lab", "audit", "agents")
    },
    **{
        f"{room} imports no method": (
            f"adaptation/{room}/made_up.py",
            "def f():\n    from acclimate.adaptation import methods",
        )
        for room in ("guards", "generators", "alignment", "drift")
    },
}


@pytest.mark.parametrize("name", RULES)
def test_no_import_goes_against_the_arrows(name: str) -> None:
    assert RULES[name](all_imports()) == []


@pytest.mark.parametrize("name", RULES)
def test_one_forbidden_import_breaks_its_rule(name: str) -> None:
    path, statement = FORBIDDEN[name]
    assert RULES[name]([*all_imports(), *imports_in(Path(path), statement)]) != []


def test_the_audit_may_use_the_studies_of_the_lab() -> None:
    allowed = imports_in(Path("streams/audit/report.py"), "from acclimate.streams.lab.study.processes import run_jobs")
    assert ROOM_RULES["audit imports nothing of the lab but its studies"](allowed) == []


@pytest.mark.parametrize("house", HOUSES)
def test_no_rooms_import_each_other_in_a_circle(house: str) -> None:
    assert circle(arrows_in(house, all_imports())) == []


@pytest.mark.parametrize(
    ("house", "path", "statement"),
    [
        ("adaptation", "adaptation/model/nets.py", "from acclimate.adaptation.lean.shift import calibrate"),
        ("registry", "registry/bundles/parts.py", "import acclimate.registry.releases.release"),
        ("streams", "streams/serving/served.py", "from acclimate.streams.agents import adapt"),
        ("streams/lab", "streams/lab/study/jobs.py", "from acclimate.streams.lab.pilot.work import load_data"),
    ],
)
def test_an_import_back_makes_a_circle(house: str, path: str, statement: str) -> None:
    assert circle(arrows_in(house, [*all_imports(), *imports_in(Path(path), statement)])) != []


@pytest.mark.parametrize("house", SIZES)
def test_a_house_stays_small_enough_to_hold_in_the_head(house: str) -> None:
    rooms, arrows = SIZES[house]
    assert len(rooms_of(house)) <= rooms
    assert len(arrows_in(house, all_imports())) <= arrows


def test_what_the_lab_and_serving_import_loads_no_kafka_client_either() -> None:
    files = [path for room in ("lab", "serving") for path in sorted((ROOT / "streams" / room).rglob("*.py"))]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files]
    modules = [f"acclimate.{name}" for name in names]
    script = f"import importlib, sys; [importlib.import_module(m) for m in {modules}]; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert KAFKA & set(loaded.split()) == set()
