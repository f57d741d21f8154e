"""Writes small, consistent runs to disk, as a sweep would leave them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from clvr_bench.files import write_atomically
from clvr_bench.records import EvaluationRecord, PretrainingRecord, Run

CLASSES = 10
MACHINE = {"hardware": "two cores", "threads": 1, "libraries": {"torch": "2.0"}}
LABELS = np.arange(1000) % CLASSES


def correctness(accuracy: float, seed: int = 0, n: int = len(LABELS)) -> np.ndarray:
    """Mark exactly ``accuracy`` percent of n images as right; the seed says which."""
    right = np.zeros(n, dtype=bool)
    right[np.random.default_rng(seed).permutation(n)[: round(accuracy / 100 * n)]] = True
    return right


def predictions_of(right: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return (N, 5) class numbers whose first is right where asked, and whose fifth is right elsewhere."""
    others = (labels[:, None] + np.arange(1, 6)) % CLASSES
    predictions = np.concatenate([labels[:, None], others[:, :4]], axis=1)
    predictions[~right] = np.concatenate([others[:, :4], labels[:, None]], axis=1)[~right]
    return predictions


@dataclass
class FakeRun:
    """One run to be; every field has the value of an ordinary SimCLR run."""

    task: str = "simclr"
    seed: int = 0
    right: np.ndarray | None = field(default_factory=lambda: correctness(60.0))
    labels: np.ndarray = field(default_factory=lambda: LABELS)
    version: int | str = 1
    options: Mapping[str, Any] = field(default_factory=lambda: {"temperature": 0.1})
    encoder: str | None = "resnet18_small"
    chain: Sequence[str | Mapping[str, Any]] = ("simclr",)
    dataset: str = "CIFAR-10"
    fingerprint: str = "f00d"
    status: str = "done"
    reason: str = ""
    finished: str = "2026-01-01T00:00:00+00:00"
    protocol: str = "linear-v1"
    knn: float | None = 55.0
    spread: float | None = 0.8
    error: str = ""
    notes: list[str] = field(default_factory=list)
    facts: Mapping[str, Any] = field(default_factory=dict)
    compute: Mapping[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    budget: Mapping[str, Any] | None = field(default_factory=lambda: {"epochs": 200, "batch_size": 512})
    extra: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    target: Mapping[str, Any] | None = None
    target_facts: Mapping[str, Any] = field(default_factory=dict)
    shown: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def identity(self) -> dict[str, Any]:
        encoder = {"name": self.encoder, "version": 1, "options": {"in_channels": 3}} if self.encoder else None
        return {
            "pretext_task": {"name": self.task, "version": self.version, "options": dict(self.options)},
            "encoder": encoder,
            "augmentation": self.links(),
            "dataset": {"name": "cifar10", "version": 1, "options": {}, "fingerprint": self.fingerprint},
            "recipe": {"optimizer": "sgd"} if self.budget else None,
            "budget": self.budget,
            "seed": self.seed,
            "precision": "bf16",
            "protocol": "standard-v1",
        }

    def links(self) -> list[dict[str, Any]]:
        """Return the chain as records keep it; a link that is a mapping has its name, version and options in it."""
        links = ({"name": link} if isinstance(link, str) else link for link in self.chain)
        return [{"version": 1, "options": {}, **link} for link in links]

    def chain_shown(self) -> str:
        options = (", ".join(f"{name}={value}" for name, value in link["options"].items()) for link in self.links())
        return " + ".join(
            link["name"] + (f" ({said})" if said else "") for link, said in zip(self.links(), options, strict=True)
        )

    def pretraining(self) -> PretrainingRecord:
        facts = {
            "dataset": self.dataset,
            "parameters": 11_200_000,
            "feature_dim": 512,
            "augmentation": self.chain_shown(),
            "labels": "none",
            "ranked": True,
            "options_source": "paper",
            "options_shown": {},
            "num_classes": CLASSES,
            "data": {"train_size": 47_500},
        }
        compute = {"seconds": 100.0, "images_per_second": 900.0, "peak_memory_mb": 1000.0, "encoder_passes": 1_200_000}
        done = self.status == "done"
        return PretrainingRecord(
            self.identity(),
            status=self.status,  # type: ignore[arg-type]
            reason=self.reason,
            facts={**facts, **self.facts},
            compute={**compute, **self.compute} if done else {},
            history=self.history,
            provenance={"finished": self.finished, **MACHINE},
        )

    def metrics(self) -> dict[str, dict[str, float]]:
        """Return what each evaluation finds; the linear one's scores follow from its predictions."""
        found: dict[str, dict[str, float]] = {name: dict(values) for name, values in self.extra.items()}
        if self.right is not None:
            top5 = (predictions_of(self.right, self.labels) == self.labels[:, None]).any(axis=1)
            found["linear"] = {
                "top1": 100 * float(self.right.mean()),
                "top5": 100 * float(top5.mean()),
                "val_top1": 50.0,
                **found.get("linear", {}),
            }
        if self.knn is not None:
            found["knn"] = {"top1": self.knn}
        if self.spread is not None:
            found["health"] = {"rankme": 120.0, "spread": self.spread, "alignment": 0.3, "uniformity": -2.5}
        return found

    def write(self, suite: Path) -> Run:
        """Write the run below a suite's folder and read it back."""
        record = self.pretraining()
        folder = suite / "runs" / record.folder_name
        record.save(folder / "pretraining.json")
        if self.status == "done":
            for name, metrics in self.metrics().items():
                self._write_evaluation(folder, record.id, name, metrics)
        return Run.load(folder)

    def _write_evaluation(self, folder: Path, pretraining: str, name: str, metrics: Mapping[str, float]) -> None:
        identity = {
            "pretraining": pretraining,
            "evaluation": {"name": name, "version": 1, "options": dict(self.shown.get(name, {}))},
            "protocol": self.protocol,
            **({"dataset": dict(self.target)} if self.target else {}),
        }
        details = {"options_shown": dict(self.shown[name])} if name in self.shown else {}
        details |= (
            {"transfer": {"dataset": "digits", "num_classes": CLASSES, **self.target_facts}} if self.target else {}
        )
        content = self._predictions() if name == "linear" and not self.error else b""
        linear = name == "linear"
        record = EvaluationRecord(
            identity,
            metrics={} if linear and self.error else metrics,
            error=self.error if linear else "",
            details=details,
            notes=self.notes if linear else [],
            predictions=sha256(content).hexdigest() if content else "",
            provenance={"finished": self.finished},
        )
        record.save(folder / "evaluations" / f"{record.file_stem}.json")
        if content:
            write_atomically(folder / "evaluations" / f"{record.file_stem}.npz", content)

    def _predictions(self) -> bytes:
        assert self.right is not None
        buffer = BytesIO()
        predictions = predictions_of(self.right, self.labels)
        np.savez_compressed(buffer, predictions=predictions.astype(np.int16), labels=self.labels.astype(np.int16))
        return buffer.getvalue()


def other_data(**changes: Any) -> dict[str, Any]:
    """Return the identity of data that no run was pretrained on."""
    return {"name": "digits", "version": 1, "options": {"image_size": 16}, "fingerprint": "d161757000", **changes}


def write_seeds(suite: Path, accuracies: list[float], **fields: Any) -> list[Run]:
    """Write one run a seed with these top-1 accuracies, in percent."""
    return [
        FakeRun(seed=seed, right=correctness(accuracy, seed), **fields).write(suite)
        for seed, accuracy in enumerate(accuracies)
    ]


def write_realistic(suite: Path) -> None:
    """Write eight ranked methods with three seeds, yardsticks, a failure, a skip, a collapse and a superseded row."""
    methods = {"moco_v2": 66.0, "byol": 65.5, "simclr": 63.0, "swav": 63.2, "barlow_twins": 61.8, "rotation": 51.0}
    for task, mean in methods.items():
        write_seeds(suite, [mean - 0.4, mean, mean + 0.5], task=task, facts={"options_shown": {}})
    write_seeds(suite, [61.0, 61.4, 61.9], options={"temperature": 0.2}, facts={"options_shown": {"temperature": 0.2}})
    for seed, right in enumerate((58.0, 57.2, 10.5)):
        collapsed = {"knn": 10.2, "spread": 0.01} if seed == 2 else {}
        FakeRun(task="simsiam", seed=seed, right=correctness(right, seed), **collapsed).write(suite)
    yardstick = {"facts": {"ranked": False}, "budget": None}
    write_seeds(suite, [33.0, 33.4, 32.9], task="random_init", **yardstick)
    write_seeds(
        suite,
        [90.1, 90.4, 90.0],
        task="supervised",
        facts={"ranked": False, "labels": "fine", "options_source": "small-scale, this project"},
    )
    pixels = {"ranked": False, "augmentation": "", "parameters": 0}
    FakeRun(task="raw_pixels", encoder=None, right=correctness(39.0), budget=None, facts=pixels, knn=34.0).write(suite)
    write_seeds(suite, [64.0, 64.2], task="vicreg", notes=["the chosen penalty is at the edge of its grid"])
    FakeRun(task="vicreg", seed=2, status="failed", reason="the loss was NaN at step 120", right=None).write(suite)
    FakeRun(task="dino", status="failed", reason="CUDA out of memory", right=None).write(suite)
    FakeRun(task="mae", status="skipped", reason="needs patch tokens, resnet18_small has none", right=None).write(suite)
    write_seeds(suite, [40.0, 41.0, 42.0], task="swav", version=0, finished="2025-12-01T00:00:00+00:00")
