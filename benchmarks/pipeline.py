"""What a record and a window cost, against the floor: ``make bench``.

One run on one machine, medians of several rounds, so that only ratios between the figures mean something. Prints JSON:

* ``bare_aiokafka``: consume and send values of the same sizes with nothing in between, the floor of any Kafka worker;
* ``pipeline``: one `acclimate worker` draining a full topic, with 1 and 16 windows per record; and with 16 where every
  hundredth record is 10 kB of noise, which ends as a dead letter;
* ``forward``: one pass per window, plain and adapted, ONNX Runtime and torch, one thread, batches of 1 and 32.
"""

import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from acclimate.adaptation.engine.engine import Engine
from acclimate.adaptation.lean.lean_settings import LeanSettings
from acclimate.adaptation.lean.leantta import adapt_batch
from acclimate.adaptation.lean.shift import calibrate
from acclimate.adaptation.model.nets import build
from acclimate.adaptation.model.spec import compact_spec
from acclimate.infra.broker import LocalKafka
from acclimate.infra.settings import Settings, load_settings
from acclimate.registry.bundles.source_bundle import build_bundle
from acclimate.streams.wire.codec import FeatureBatch, encode_features
from acclimate.streams.wire.topics import create_topics, topic_name

CHANNELS, LENGTH, CLASSES = 3, 104, 4
WINDOWS = 16_384
ROUNDS = 3
PREDICTION_BYTES = {1: 1_100, 16: 380}  # per window, by windows per record, about; what the bare loop sends


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder, LocalKafka() as kafka:
        bundle = Path(folder) / "bundle"
        forward = _forward(bundle)
        result: dict[str, Any] = {
            "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
            "window": f"{CHANNELS}x{LENGTH}",
            "bare_aiokafka": {},
            "pipeline": {},
            "forward": forward,
        }
        for per_record in (1, 16):
            rounds = [_round(kafka.bootstrap, bundle, per_record, number) for number in range(ROUNDS)]
            for name in ("bare_aiokafka", "pipeline"):
                us = statistics.median(row[name] for row in rounds)
                result[name][f"{per_record}_windows_per_record"] = {
                    "us_per_record": round(us, 1),
                    "us_per_window": round(us / per_record, 1),
                    "windows_per_s": round(1e6 * per_record / us),
                }
        poisoned = statistics.median(_poisoned_round(kafka.bootstrap, bundle, number) for number in range(ROUNDS))
        clean = result["pipeline"]["16_windows_per_record"]["us_per_record"]
        result["pipeline"]["16_windows_per_record_1_percent_poison"] = {
            "us_per_record": round(poisoned, 1),
            "throughput_against_clean": round(clean / poisoned, 3),
        }
    print(json.dumps(result, indent=2))


def _round(bootstrap: str, bundle: Path, per_record: int, number: int) -> dict[str, float]:
    settings = load_settings(bootstrap=bootstrap, fleet=f"bench-{per_record}-{number}")
    create_topics(settings, partitions=1)
    records = WINDOWS // per_record
    _fill(settings, per_record, records)
    bare = asyncio.run(_bare(settings, records, per_record))
    return {"bare_aiokafka": bare, "pipeline": _pipeline(settings, bundle, records)}


def _poisoned_round(bootstrap: str, bundle: Path, number: int) -> float:
    settings = load_settings(bootstrap=bootstrap, fleet=f"bench-poison-{number}")
    create_topics(settings, partitions=1)
    records = WINDOWS // 16
    _fill(settings, 16, records, poison_every=100)
    answers = records - records // 100
    return _pipeline(settings, bundle, answers) * answers / records


def _fill(settings: Settings, per_record: int, records: int, poison_every: int = 0) -> None:
    rng = np.random.default_rng(0)
    windows = rng.normal(size=(per_record, CHANNELS, LENGTH)).astype(np.float32)
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap, linger_ms=5, batch_size=262_144)
    for i in range(records):
        times = tuple(range(1_700_000_000_000, 1_700_000_000_000 + per_record))
        value = encode_features(FeatureBatch("bench", "00ff00ff00ff00ff", i * per_record, times, windows))
        if poison_every and i % poison_every == poison_every - 1:
            value = b"\xff" * 10_000
        producer.send(topic_name(settings.fleet, "features"), key=b"bench", value=value)
    producer.close()


async def _bare(settings: Settings, records: int, per_record: int) -> float:
    """Return microseconds per record of a loop that reads, sends as many bytes as a prediction has, and commits."""
    consumer = AIOKafkaConsumer(
        topic_name(settings.fleet, "features"),
        bootstrap_servers=settings.bootstrap,
        group_id=f"{settings.fleet}.bare",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap,
        acks="all",
        enable_idempotence=True,
        linger_ms=2,
        max_batch_size=262_144,
        max_request_size=8_388_608,
    )
    await consumer.start()
    await producer.start()
    value = b"x" * PREDICTION_BYTES[per_record] * per_record
    sink = topic_name(settings.fleet, "shifts")  # exists, and the pipeline does not use it
    try:
        sent: list[asyncio.Future[object]] = []
        first = await consumer.getone()
        started = time.perf_counter()
        done = 1
        while done < records:
            for batch in (await consumer.getmany(timeout_ms=1000, max_records=500)).values():
                sent += [await producer.send(sink, key=first.key, value=value) for _ in batch]
                done += len(batch)
            if len(sent) > 2000:
                await asyncio.gather(*sent)
                sent.clear()
        await asyncio.gather(*sent)
        await consumer.commit()
        return (time.perf_counter() - started) / records * 1e6
    finally:
        await consumer.stop()
        await producer.stop()


def _pipeline(settings: Settings, bundle: Path, records: int) -> float:
    """Return microseconds per record between the first and the last prediction, by the broker's clock."""
    command = [
        sys.executable,
        "-m",
        "acclimate.streams.cli",
        "worker",
        "--bundle",
        str(bundle),
        "--fleet",
        settings.fleet,
    ]
    command += ["--mode", "always"]
    with tempfile.TemporaryFile() as log:
        worker = subprocess.Popen([*command, "--bootstrap", settings.bootstrap], stdout=log, stderr=log)
        try:
            consumer = KafkaConsumer(bootstrap_servers=settings.bootstrap, enable_auto_commit=False)
            tp = TopicPartition(topic_name(settings.fleet, "predictions"), 0)
            while consumer.end_offsets([tp])[tp] < records:
                if worker.poll() is not None:
                    log.seek(0)
                    raise SystemExit(f"the worker ended with {worker.returncode}:\n{log.read().decode()[-2000:]}")
                time.sleep(0.2)
            consumer.assign([tp])
            stamps = []
            for offset in (0, records - 1):
                consumer.seek(tp, offset)
                stamps.append(next(consumer).timestamp)
            consumer.close()
        finally:
            worker.terminate()
            worker.wait()
    return float(stamps[1] - stamps[0]) / records * 1e3


def _forward(folder: Path) -> dict[str, dict[str, float]]:
    spec = compact_spec(CHANNELS, LENGTH, CLASSES)
    model = build(spec).eval()
    windows = np.random.default_rng(0).normal(size=(320, CHANNELS, LENGTH)).astype(np.float32)
    settings = LeanSettings.for_layers(spec.layers)
    names = tuple(f"c{i}" for i in range(CHANNELS)), tuple(f"k{i}" for i in range(CLASSES))
    calibration = calibrate(model, windows[:200], windows[200:])
    engine: Engine = build_bundle(model, settings, calibration, *names, {}, windows[:8], folder).engine()
    tensor = torch.from_numpy(windows)

    def torch_plain(n: int) -> None:
        with torch.inference_mode():
            model(tensor[:n])

    passes: dict[str, Callable[[int], object]] = {
        "onnxruntime_source_with_shift_us": lambda n: engine.run(windows[:n], adapted=False),
        "onnxruntime_source_and_adapted_us": lambda n: engine.run(windows[:n]),
        "torch_plain_us": torch_plain,
        "torch_adapted_us": lambda n: adapt_batch(model, tensor[:n], settings),
    }
    return {f"batch_{batch}": {name: _per_window(run, batch) for name, run in passes.items()} for batch in (1, 32)}


def _per_window(run: Callable[[int], object], batch: int) -> float:
    repeats = max(5, 640 // batch)
    run(batch)
    rounds = []
    for _ in range(7):
        started = time.perf_counter()
        for _ in range(repeats):
            run(batch)
        rounds.append((time.perf_counter() - started) / repeats / batch * 1e6)
    return round(statistics.median(rounds), 1)


if __name__ == "__main__":
    main()
