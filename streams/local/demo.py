"""The whole story on one machine: train, start Kafka and a worker, play a fleet, collect, compare, report.

Everything that is started here is stopped here, also after an error or Ctrl-C.
"""

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from acclimate.adaptation.data.dataset import Dataset, Split
from acclimate.adaptation.errors import ConfigError
from acclimate.infra.broker import LocalKafka
from acclimate.infra.settings import Settings
from acclimate.registry.bundles.source_bundle import read_bundle
from acclimate.streams.audit.collect import Starts, collect, present_ends
from acclimate.streams.audit.join import Joined, read_ledger
from acclimate.streams.audit.offline import compare_offline, offline_figures
from acclimate.streams.audit.report import Story, write_report
from acclimate.streams.audit.summary import Report, latency_figures, summarise, throughput_windows_per_s
from acclimate.streams.lab.making.source_model import SourceModel, make_source_bundle
from acclimate.streams.local.player import FleetReport, play
from acclimate.streams.local.worker_process import WorkerProcess, running_worker
from acclimate.streams.serving.served import serve
from acclimate.streams.wire.topics import create_topics

__all__ = ["DemoOptions", "DemoResult", "run_demo"]

Say = Callable[[str], None]
Progress = Callable[[str, int, int], None]  # what, done, of how many

_WARM_UP_RECORDS = 4
_READY_LIMIT_S = 60.0
_TRAINING_THREADS = 2  # other numbers round otherwise, so the seed alone would not decide the result


@dataclass(frozen=True)
class DemoOptions:
    """How to run it.

    Attributes:
        out: Folder for the bundle, ledgers, the worker's log and the report.
        seed: Decides training.
        epochs: Passes over the source; None is chosen by its size.
        windows_per_record: Windows in one Kafka record, 1 to 256.
        latency_s: Seconds of the second, slower run in which times are measured.
        idle_s: Give up on answers when nothing new came for so long.
        partitions: The number of partitions of the topics.
    """

    out: Path
    seed: int = 0
    epochs: int | None = None
    windows_per_record: int = 16
    latency_s: float = 10.0
    idle_s: float = 30.0
    partitions: int = 6


class DemoReport(Report):
    """The report of a collection, and what a demo knows besides."""

    runs: dict[str, dict[str, int]]
    source_model: dict[str, Any]
    data: dict[str, Any]
    cores: int | None
    mode: str
    windows_per_record: int
    seed: int
    stages_s: dict[str, float]


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What came out; ``paths`` by kind: json, html, overview."""

    report: DemoReport
    paths: Mapping[str, Path]

    @property
    def sound(self) -> bool:
        """Whether nothing was lost and Kafka changed no answer."""
        return not self.report["lost"] and not self.report["conflicts"] and self.report["offline"]["equal"]


def run_demo(
    dataset: Dataset,
    settings: Settings,
    options: DemoOptions,
    *,
    local: bool,
    notes: Mapping[str, str] | None = None,
    say: Say = lambda text: None,
    progress: Progress = lambda what, done, of: None,
) -> DemoResult:
    """Run the demo and write its report.

    Args:
        dataset: With a target.
        settings: Mode and fleet, and the broker unless ``local``.
        options: See there.
        local: Start a Kafka of our own for the time of the run.
        notes: What is known about single devices of the target, by group.
        say: Called with one line when a stage begins.
        progress: Called while a stage goes on.

    Raises:
        ConfigError: There is no target.
        BrokerError: Kafka or the worker ended or cannot be reached.
    """
    target = dataset.target
    if target is None:
        raise ConfigError("the demo streams a target: add --target KEY=VALUES")
    clock = _Stages(say)
    clock.begin(f"training the source model on {len(dataset.source):,} windows of {_groups(dataset.source)} devices")
    torch.set_num_threads(_TRAINING_THREADS)
    model = make_source_bundle(
        dataset,
        options.out / "bundle",
        options.seed,
        epochs=options.epochs,
        progress=lambda epoch, of, loss, accuracy: progress("training", epoch, of),
        force=True,
    )
    clock.end("train", f"{100 * model.trained.accuracy:.1f} % correct on held-out source windows")
    with ExitStack() as stack:
        clock.begin("starting Kafka and a worker" if local else f"starting a worker on {settings.bootstrap}")
        if local:
            broker = stack.enter_context(LocalKafka(notify=say))
            settings = settings.model_copy(update={"bootstrap": broker.bootstrap})
        create_topics(settings, partitions=options.partitions)
        worker = stack.enter_context(running_worker(settings, model.folder, options.out / "worker.log"))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="acclimate-demo-")))
        fleet = _Fleet(dataset, target, settings, options, worker, scratch, progress)
        warm = fleet.run("warmup", limit=_WARM_UP_RECORDS * options.windows_per_record, idle_s=_READY_LIMIT_S)
        worker.check()
        clock.end("start", "the worker answers" if not warm.lost else "the worker does not answer")

        clock.begin(f"{_groups(target)} devices publish {len(target):,} windows as fast as they can")
        joined = fleet.run("all")
        throughput = throughput_windows_per_s(joined)
        clock.end("throughput", f"{throughput or 0:,.0f} windows/s, {len(joined.lost)} lost")

        slow, rate = None, None
        if throughput is not None and options.latency_s > 0:
            rate = throughput / 2
            clock.begin(f"a second run of {options.latency_s:.0f} s at half that rate, for the time an answer takes")
            limit = min(len(target), max(options.windows_per_record, round(rate * options.latency_s)))
            slow = fleet.run("half", rate=rate, limit=limit)
            clock.end("latency", f"{len(slow.lost)} lost")

    clock.begin("the same model on the same rows, without Kafka")
    bundle = read_bundle(model.folder)
    offline = compare_offline(serve(bundle, settings.mode), target, joined)
    clock.end("offline", "equal" if offline.equal else f"{offline.differing} windows differ")

    runs = {"warmup": warm, "all": joined} | ({} if slow is None else {"half": slow})
    report: DemoReport = {
        **summarise(joined),
        "lost": sum(len(run.lost) for run in runs.values()),
        "conflicts": sum(run.conflicts for run in runs.values()),
        "runs": {
            name: {"windows": run.windows, "lost": len(run.lost), "duplicates": run.duplicates}
            for name, run in runs.items()
        },
        "latency_ms": latency_figures(joined if slow is None else slow, rate),
        "offline": offline_figures(offline),
        "source_model": _model_figures(model),
        "data": {"name": dataset.name, "selection": dataset.selection, "class_names": list(dataset.class_names)},
        "workers": 1,
        "cores": os.cpu_count(),
        "mode": settings.mode,
        "windows_per_record": options.windows_per_record,
        "seed": options.seed,
        "stages_s": clock.seconds,
    }
    described = {f"{dataset.group_key}-{group}": note for group, note in (notes or {}).items()}
    return DemoResult(
        report, write_report(options.out, report, joined, _story(dataset, target, report, described), slow)
    )


class _Fleet:
    """Plays the target and collects the answers, run by run, each with its own ledger and sessions."""

    def __init__(
        self,
        dataset: Dataset,
        target: Split,
        settings: Settings,
        options: DemoOptions,
        worker: WorkerProcess,
        scratch: Path,
        progress: Progress,
    ) -> None:
        self._dataset = dataset
        self._target = target
        self._settings = settings
        self._options = options
        self._worker = worker
        self._scratch = scratch
        self._progress = progress
        self._labels = dict(zip(target.rows.tolist(), target.labels.tolist(), strict=True))

    def run(
        self, name: str, *, limit: int | None = None, rate: float | None = None, idle_s: float | None = None
    ) -> Joined:
        starts: Starts = present_ends(self._settings)
        ledger = self._options.out / f"ledger-{name}.jsonl"
        ledger.unlink(missing_ok=True)
        windows = len(self._target) if limit is None else min(limit, len(self._target))
        self._play(ledger, limit, rate, windows)

        def collecting(done: int, of: int) -> None:
            self._worker.check()
            self._progress("collecting", done, of)

        return collect(
            self._settings,
            read_ledger(ledger),
            self._labels,
            starts=starts,
            idle_s=idle_s if idle_s is not None else self._options.idle_s,
            progress=collecting,
        )

    def _play(self, ledger: Path, limit: int | None, rate: float | None, windows: int) -> FleetReport:
        def publishing(done: int) -> None:
            self._worker.check()
            self._progress("publishing", done, windows)

        return play(
            self._target,
            self._settings,
            group_key=self._dataset.group_key,
            sampling_rate_hz=self._dataset.sampling_rate_hz,
            ledger=ledger,
            outbox_path=self._scratch / "outbox.sqlite",
            rate_windows_per_s=rate,
            windows_per_record=self._options.windows_per_record,
            limit=limit,
            about={"data": self._dataset.name, **self._dataset.selection},
            progress=publishing,
        )


class _Stages:
    """Says what begins and how long it took."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._began = time.monotonic()
        self.seconds: dict[str, float] = {}

    def begin(self, text: str) -> None:
        self._say(text)
        self._began = time.monotonic()

    def end(self, name: str, outcome: str) -> None:
        self.seconds[name] = round(time.monotonic() - self._began, 2)
        self._say(f"  {outcome} ({self.seconds[name]:.1f} s)")


def _groups(split: Split) -> int:
    return sum(1 for _ in split.streams())


def _model_figures(model: SourceModel) -> dict[str, Any]:
    trained = model.trained
    return {
        "bundle": model.digest,
        "held_out_accuracy": round(trained.accuracy, 5),
        "windows_trained": len(trained.held_out),
        "windows_held_out": int(trained.held_out.sum()),
        "epochs": len(trained.losses),
        "threads": trained.threads,
        "leantta": asdict(model.settings),
    }


def _who_answered(threshold: float) -> str:
    if threshold == 0:
        return "The corrected answer counted; the correction is itself weak where a window lies near the training data"
    return f"Where the shift reached {threshold:g} the corrected answer counted, elsewhere that of the model as trained"


def _story(dataset: Dataset, target: Split, report: DemoReport, notes: Mapping[str, str]) -> Story:
    """Tell what was done to a reader who knows neither the method nor Kafka."""
    model, lean = report["source_model"], report["source_model"]["leantta"]
    last = {
        "observe": "The answer was always that of the model as trained; the corrected one was only recorded (mode "
        "observe). The true labels were joined only afterwards, to write this report.",
        "always": f"{_who_answered(lean['threshold'])} (mode always, to show what adaptation does; a fleet starts with "
        "observe). "
        "The true labels were joined only afterwards, to write this report.",
    }
    steps = (
        f"A small neural network learned to tell {dataset.classes} classes apart from {model['windows_trained']:,} "
        f"labelled windows of sensor data; trained in the same way without {model['windows_held_out']:,} of them, it "
        f"is {100 * model['held_out_accuracy']:.1f} % correct on those.",
        f"Then {_groups(target)} other devices, none of them seen in training, published {len(target):,} windows "
        "in time order through Apache Kafka, without labels.",
        "For each window a worker computed two answers: that of the model as trained, and that of the same model "
        "corrected by LeanTTA, which uses the statistics of this one window and nothing else."
        if report["adaptable"]
        else "For each window a worker computed the answer of the model as trained. LeanTTA, which corrects a model by "
        "the statistics of a single window, does not apply to rows without a time axis.",
        "It also measured the shift: how far the window lies from what the model was trained on. 1.0 is the level that "
        "only one or two in a hundred held-out windows exceed.",
        last[report["mode"]]
        if report["adaptable"]
        else "The true labels were joined only afterwards, for this report.",
    )
    facts = {
        "data": dataset.name,
        **{f"selected {name.replace('_', ' ')}": value for name, value in dataset.selection.items() if value},
        "seed": str(report["seed"]),
        "LeanTTA": f"tau {lean['tau']:g}, lambda {lean['lam']:g}, {lean['direction']}, layers "
        + " ".join("on" if layer else "off" for layer in lean["layers"]),
        "machine": f"{report['cores']} cores for the player, Kafka and one worker together",
        "windows per record": str(report["windows_per_record"]),
    }
    subtitle = f"{dataset.name}: {_groups(target)} devices, {len(target):,} windows, one worker."
    return Story("What adaptation did for this fleet", subtitle, steps, notes, facts)
