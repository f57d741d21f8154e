"""Top-1 and speed beside lightly, which pretrains on the same pictures with the same budget; one probe judges both.

Run as ``python benchmarks/peers.py --data-root DIR [--suite figure2-cifar10-cpu] [--tasks simclr byol] [--seeds 0 1 2]
[--epochs N] [--results results]``, beside ``clvr-bench run`` of that suite, whose records are the other side. Pictures,
encoder, options, augmentation, recipe and budget are the suite's. What lightly has pretrained is kept as
``RESULTS/SUITE-lightly/pretrained/*``, what the suite's evaluations say of it as runs of the task ``weights`` in
``RESULTS/SUITE-lightly``, the table as ``peers.csv`` there. A seed that is done is not run again.

lightly's are the transforms, heads, losses and moving average, put together as in its examples: a data loader over PIL
pictures, with as many worker processes as torch has threads, and a plain loop.

Equal on both sides:

- the training pictures, ``val`` left out; they lie decoded in memory, which spares lightly's workers the JPEG files;
- the encoder, to the bit: a seed's initial weights, memory layout, precision (autocast), input normalization;
- the widths of heads; BYOL's heads have the same layers and, to the bit, the same initial weights;
- optimizer, schedule and decay, built by the harness; biases and normalization do not decay; the last, smaller batch of
  an epoch is dropped. A step moves as far: lightly's SimCLR loss is the suite's, its BYOL loss is a quarter of the
  suite's plus a constant, so that BYOL's rate is four times and its decay a quarter of the suite's;
- losses are computed in float32, whatever the networks' precision;
- BYOL's target: a copy that follows after every step, parameters alone, with a momentum that grows as half a cosine
  from the suite's to 1, step by step (lightly's examples move it before a step, with a momentum an epoch);
- crop area, flip, probabilities and strengths of color jitter, grayscale, blur and solarization.

Different, as lightly has it:

- SimCLR's head normalizes its output too (BatchNorm, and no bias); the harness's normalizes its hidden layer alone;
- SimCLR's two views pass encoder and head one after the other, so BatchNorm's statistics are one view's; the harness's
  pass in one batch;
- transforms are PIL's: they round to 8 bits after each operation; a blur, where the suite has one, is made of boxes;
- the order of the pictures and all draws of views come from torch's and NumPy's generators, seeded by the run's seed;
- no k-NN accuracy is taken between epochs; its time is not in the harness's seconds either.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from lightly.loss import NegativeCosineSimilarity, NTXentLoss
from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead, SimCLRProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.transforms import BYOLTransform, BYOLView1Transform, BYOLView2Transform, SimCLRTransform
from lightly.transforms.multi_view_transform import MultiViewTransform
from lightly.utils.scheduler import cosine_schedule
from PIL import Image
from rich.console import Console
from scipy.stats import ttest_ind
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from clvr_bench import Augmentation, ClvrBenchError, Encoder, Recipe, Split
from clvr_bench.assembly import build_augmentation, build_task_on
from clvr_bench.checkpoints import save_weights
from clvr_bench.contracts.pretext_task import decay_groups
from clvr_bench.data import Access
from clvr_bench.devices import autocast, choose_device
from clvr_bench.draws import key_of
from clvr_bench.groups import group_runs
from clvr_bench.ops.distortions import Distortions
from clvr_bench.optimization import build_optimizer, build_schedule
from clvr_bench.planning import Planned
from clvr_bench.plugins import load_plugins
from clvr_bench.provenance import now, provenance
from clvr_bench.records import WEIGHTS, PretrainingRecord, Run
from clvr_bench.suites import Suite, load_suite, parse_suite
from clvr_bench.sweep import Sweep, plan
from clvr_bench.tables import write_leaderboard
from clvr_plugins.augmentations.byol import BYOLAugmentation
from clvr_plugins.augmentations.simclr import SimCLRAugmentation

VERSION = 1  # of this script's side; bumped whenever its scores can change
PEER = {"name": "lightly", "version": version("lightly"), "script": VERSION}
OURS, THEIRS = "clvr-bench", "lightly"
VIEWS = 2
DIFFERENCE = ("difference", "difference_low", "difference_high")


class Peer(nn.Module):
    """A method as lightly's users write it.

    Args:
        encoder: Maps pictures in [0, 1] to features (B, D).
        options: Of the suite's pretext task.

    Attributes:
        scale: How many times the suite's loss is lightly's, but for a constant.
    """

    scale: ClassVar[float] = 1.0

    def __init__(self, encoder: Encoder, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.encoder = encoder

    def embed(self, first: Tensor, second: Tensor) -> tuple[Tensor, ...]:
        """Run the networks, which may be in half precision, over two views (B, C, H, W)."""
        raise NotImplementedError

    def loss(self, *embedded: Tensor) -> Tensor:
        """Compute lightly's loss of what ``embed`` returned, in float32."""
        raise NotImplementedError

    def after_step(self, step: int, steps: int) -> None:
        """Move what no optimizer moves, after one of so many steps."""


class LightlySimCLR(Peer):
    """SimCLR (https://docs.lightly.ai/self-supervised-learning/examples/simclr.html)."""

    def __init__(self, encoder: Encoder, options: Mapping[str, Any]) -> None:
        super().__init__(encoder, options)
        width = encoder.feature_dim
        self.projection_head = SimCLRProjectionHead(width, width, options["projection_dim"])
        self.criterion = NTXentLoss(temperature=options["temperature"])

    def embed(self, first: Tensor, second: Tensor) -> tuple[Tensor, ...]:
        """Return the embeddings (B, P) of both views."""
        return tuple(self.projection_head(self.encoder(view)) for view in (first, second))

    def loss(self, *embedded: Tensor) -> Tensor:
        """Compute NT-Xent, a mean over 2B views."""
        loss: Tensor = self.criterion(*embedded)
        return loss


class LightlyBYOL(Peer):
    """BYOL (https://docs.lightly.ai/self-supervised-learning/examples/byol.html)."""

    scale = 4.0  # (2 - 2 cos) + (2 - 2 cos) here, (-cos - cos) / 2 there

    def __init__(self, encoder: Encoder, options: Mapping[str, Any]) -> None:
        super().__init__(encoder, options)
        hidden, length = options["hidden_dim"], options["projection_dim"]
        self.base_momentum = options["target_momentum"]
        self.projection_head = BYOLProjectionHead(encoder.feature_dim, hidden, length)
        self.prediction_head = BYOLPredictionHead(length, hidden, length)
        self.encoder_momentum = copy.deepcopy(encoder)
        self.projection_head_momentum = copy.deepcopy(self.projection_head)
        deactivate_requires_grad(self.encoder_momentum)
        deactivate_requires_grad(self.projection_head_momentum)
        self.criterion = NegativeCosineSimilarity()

    def embed(self, first: Tensor, second: Tensor) -> tuple[Tensor, ...]:
        """Return the predictions (B, P) and the targets (B, P) of both views."""
        predictions = [self.prediction_head(self.projection_head(self.encoder(view))) for view in (first, second)]
        with torch.no_grad():
            targets = [self.projection_head_momentum(self.encoder_momentum(view)) for view in (first, second)]
        return (*predictions, *targets)

    def loss(self, *embedded: Tensor) -> Tensor:
        """Compute the mean negative cosine of both ways."""
        first, second, first_target, second_target = embedded
        loss: Tensor = 0.5 * (self.criterion(first, second_target) + self.criterion(second, first_target))
        return loss

    def after_step(self, step: int, steps: int) -> None:
        """Let the target follow."""
        momentum = cosine_schedule(step, steps + 1, self.base_momentum, 1.0)  # it would end one step earlier
        update_momentum(self.encoder, self.encoder_momentum, m=momentum)
        update_momentum(self.projection_head, self.projection_head_momentum, m=momentum)


PEERS: Mapping[str, type[Peer]] = {"simclr": LightlySimCLR, "byol": LightlyBYOL}


def scaled(recipe: Recipe, scale: float) -> Recipe:
    """Return the recipe whose steps on a loss are those of the given one on ``scale`` times that loss.

    A step of SGD follows rate * (gradient + decay * weight): the rate takes the factor, and the decay gives it back.

    Raises:
        ClvrBenchError: The optimizer's steps are of another form.
    """
    if scale == 1:
        return recipe
    if recipe.optimizer not in ("sgd", "momentum"):
        raise ClvrBenchError(f"a recipe with '{recipe.optimizer}' cannot be scaled. Use a suite with sgd or momentum.")
    return replace(recipe, learning_rate=scale * recipe.learning_rate, weight_decay=recipe.weight_decay / scale)


def transform(augmentation: Augmentation | None) -> MultiViewTransform:
    """Return lightly's transform of PIL pictures that has the distributions of one of the harness's augmentations.

    Raises:
        ClvrBenchError: lightly has none.
    """
    if isinstance(augmentation, SimCLRAugmentation):
        return SimCLRTransform(**_arguments(augmentation.distortions, augmentation.size))
    if isinstance(augmentation, BYOLAugmentation):
        first, second = (
            {**_arguments(distortions, augmentation.size), "solarization_prob": distortions.solarized}
            for distortions in augmentation.pair
        )
        return BYOLTransform(BYOLView1Transform(**first), BYOLView2Transform(**second))
    raise ClvrBenchError("lightly stands beside the augmentations 'simclr' and 'byol' alone. Use one in the suite.")


def _arguments(distortions: Distortions, size: int) -> dict[str, Any]:
    least, greatest = distortions.area
    if greatest != 1:
        raise ClvrBenchError(f"lightly's crops reach up to the whole picture, so area must end with 1, not {greatest}.")
    names = ("cj_bright", "cj_contrast", "cj_sat", "cj_hue")
    return {
        "input_size": size,
        "min_scale": least,
        "cj_prob": distortions.jittered,
        "cj_strength": 1.0,
        **dict(zip(names, distortions.jitter, strict=True)),
        "random_gray_scale": distortions.gray,
        "gaussian_blur": distortions.blurred,
        "normalize": None,  # encoders do it
    }


class Pictures(Dataset[list[Tensor]]):
    """A split's pictures as PIL has them, in memory, each transformed on its own into its views."""

    def __init__(self, split: Split, transform: MultiViewTransform) -> None:
        stored = split.images(torch.arange(len(split)))
        pixels, sizes = stored.pixels.permute(0, 2, 3, 1).cpu().numpy(), stored.sizes.tolist()
        framed = zip(pixels, sizes, strict=True)
        self._pictures = [Image.fromarray(picture[:height, :width]) for picture, (height, width) in framed]
        self._transform = transform

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, number: int) -> list[Tensor]:
        views: Any = self._transform(self._pictures[number])  # by its types it might return pictures too
        return list(views)


class Pretraining:
    """lightly's side of one of the suite's runs.

    Args:
        planned: The suite's run.
        sweep: The sweep that it is part of.
    """

    def __init__(self, planned: Planned, sweep: Sweep) -> None:
        combination, task = planned.combination, planned.combination.task
        facts = planned.data.facts(task.task.labels)
        split = planned.data.pretraining(task.task.labels)
        views = transform(build_augmentation(combination.augmentation, facts))
        encoder = build_task_on(sweep.device, combination, facts).encoder
        torch.manual_seed(key_of(combination.seed, "heads"))
        peer = PEERS[task.entry.name](encoder, task.options)
        self.peer = peer.to(sweep.device).to(memory_format=torch.channels_last)
        self._seed, self._device, self._precision = combination.seed, sweep.device, sweep.precision
        batch, pictures, workers = combination.budget.batch_size, Pictures(split, views), torch.get_num_threads()
        self._loader = DataLoader(
            pictures, batch, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=True
        )
        self.epochs, self.pictures = combination.budget.epochs, len(self._loader) * batch  # an epoch
        self._steps = self.epochs * len(self._loader)
        recipe = scaled(task.recipe, peer.scale)
        self._optimizer = build_optimizer(decay_groups(self.peer), recipe, batch)
        self._schedule = build_schedule(self._optimizer, recipe, self._steps)

    def run(self) -> Iterator[dict[str, float]]:
        """Train, and yield of every epoch its number, mean loss and seconds.

        Raises:
            ClvrBenchError: The loss is not finite.
        """
        key = key_of(self._seed, "order")
        torch.manual_seed(key)
        np.random.seed(key % 2**32)  # some of lightly's transforms draw from it; workers are seeded from torch's
        self.peer.train()
        for epoch in range(self.epochs):
            started = time.perf_counter()
            losses = [self.step(views, step) for step, views in enumerate(self._loader, epoch * len(self._loader))]
            mean = float(torch.stack(losses).mean())
            if not math.isfinite(mean):
                raise ClvrBenchError(f"lightly: the loss became NaN or infinite in epoch {epoch + 1}. Lower the rate.")
            yield {"epoch": epoch + 1, "loss": round(mean, 5), "seconds": round(time.perf_counter() - started, 3)}

    def step(self, views: Sequence[Tensor], step: int) -> Tensor:
        """Take a step and return its loss.

        Args:
            views: Two (B, C, H, W), in [0, 1].
            step: Its number, from 0.
        """
        with autocast(self._device, self._precision):
            embedded = self.peer.embed(*(view.to(self._device) for view in views))
        loss = self.peer.loss(*(part.float() for part in embedded))
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._schedule.step_update(step)
        self._optimizer.step()
        self.peer.after_step(step, self._steps)
        return loss.detach()


def folder_beside(sweep: Sweep) -> Path:
    """Return the folder that lightly's side of a sweep goes into."""
    return sweep.results.parent / f"{sweep.suite.name}-lightly"


def pretrained(planned: Planned, sweep: Sweep, console: Console) -> tuple[str, PretrainingRecord]:
    """Pretrain lightly's side of one of the suite's runs, unless that is done.

    Args:
        planned: The suite's run.
        sweep: The sweep that it is part of.
        console: Is told of every epoch.

    Returns:
        The file of the encoder's weights, or its hash where it was not kept; and the record beside it.
    """
    record = PretrainingRecord({**planned.identity, "peer": PEER}, facts=planned.facts)
    place = folder_beside(sweep) / "pretrained" / record.folder_name
    path, weights = place / "pretraining.json", place / WEIGHTS
    if path.is_file():
        record = PretrainingRecord.load(path)
        return str(weights) if weights.is_file() else f"sha256:{record.weights}", record
    run, started, history = Pretraining(planned, sweep), now(), []
    for entry in run.run():
        history.append(entry)
        said = f"epoch {entry['epoch']} of {run.epochs}, loss {entry['loss']:.4f}, {entry['seconds']:.1f} s"
        console.print(f"lightly: {planned.combination.task.entry.name}, seed {planned.combination.seed}: {said}")
    seconds = sum(entry["seconds"] for entry in history)
    rate = run.epochs * run.pictures / seconds
    record = replace(
        record,
        compute={"seconds": round(seconds, 2), "images_per_second": round(rate, 1)},
        history=history,
        weights=save_weights(place, run.peer.encoder),
        provenance=provenance(sweep.device, (), started),
    )
    record.save(path)
    return str(weights), record


def judged(weights: str, planned: Planned, sweep: Sweep, access: Access) -> Run:
    """Let the suite's evaluations judge a file of weights, unless they have, and return the run with their records.

    Args:
        weights: The file, or the hash of one that is judged already.
        planned: The suite's run that it stands beside.
        sweep: The sweep that that is part of.
        access: How the data are reached.

    Raises:
        ClvrBenchError: An evaluation failed.
    """
    combination, folder = planned.combination, folder_beside(sweep)
    encoder: Any = combination.encoder  # both methods have one
    source = f"lightly {PEER['version']}, {combination.task.entry.name}, seed {combination.seed}"
    task = {"name": "weights", "file": weights, "format": "clvr_bench", "labels": "none", "options_source": source}
    content = {
        **sweep.suite.model_dump(),
        "name": folder.name,
        "seeds": [combination.seed],
        "encoders": [{"name": encoder.entry.name, **encoder.changed}],
        "pretext_tasks": [task],
    }
    suite = parse_suite(content, folder.name)
    judging = plan(suite, sweep.plugins, results=folder.parent, device=sweep.device, access=access)
    failures = judging.run().failures
    if failures:
        raise ClvrBenchError(failures[0])
    (only,) = judging.planned
    return Run.load(only.folder)


def measured(side: str, method: str, run: Run, compute: Mapping[str, float]) -> dict[str, Any]:
    """Return what one seed of one side came to, as a row for ``summed_up``.

    Args:
        side: ``clvr-bench`` or ``lightly``.
        method: As it is registered.
        run: With its evaluations.
        compute: Of the record of its pretraining.

    Raises:
        ClvrBenchError: It has no linear evaluation.
    """
    own = group_runs([run])[0]  # before those on other data
    top1, knn = (own.values(evaluation, "top1") for evaluation in ("linear", "knn"))
    if not top1:
        raise ClvrBenchError(f"{run.folder}: no linear evaluation to compare. Use a suite with 'linear'.")
    return {
        "side": side,
        "method": method,
        "top1": top1[0],
        "knn_top1": knn[0] if knn else math.nan,
        "seconds": compute["seconds"],
        "views_per_second": VIEWS * compute["images_per_second"],
    }


def summed_up(seeds: pd.DataFrame) -> pd.DataFrame:
    """Put the seeds of each side of each method together.

    Args:
        seeds: Rows as ``measured`` makes them, in any order.

    Returns:
        A row a method and side: ``method, side, seeds, top1_mean`` (percent), ``top1_std`` (points),
        ``knn_top1_mean, seconds_mean, views_per_second_mean``; and in lightly's ``difference``, its mean top-1 minus
        the other's, from ``difference_low`` to ``difference_high`` with 95% confidence (points). NaN where there are
        too few seeds.
    """
    rows = seeds.groupby(["method", "side"]).agg(
        seeds=("top1", "size"),
        top1_mean=("top1", "mean"),
        top1_std=("top1", "std"),
        knn_top1_mean=("knn_top1", "mean"),
        seconds_mean=("seconds", "mean"),
        views_per_second_mean=("views_per_second", "mean"),
    )
    rows[[*DIFFERENCE]] = math.nan
    for method, both in seeds.groupby("method"):
        theirs, ours = (both.loc[both["side"] == side, "top1"].tolist() for side in (THEIRS, OURS))
        if theirs and ours:
            rows.loc[(method, THEIRS), [*DIFFERENCE]] = difference(theirs, ours)
    return rows.reset_index().round(4)


def difference(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float]:
    """Return the first mean minus the second and the ends of its 95% interval: Student's t, Welch's degrees of freedom.

    Args:
        first: A number a seed, at least one; with fewer than two the ends are NaN.
        second: Likewise.
    """
    middle = fmean(first) - fmean(second)
    if min(len(first), len(second)) < 2:
        return middle, math.nan, math.nan
    low, high = ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    return middle, float(low), float(high)


def markdown(rows: pd.DataFrame) -> str:
    """Write what ``summed_up`` returns as a Markdown table."""
    lines = ["| | method | seeds | top-1 % | k-NN % | seconds | views/s | lightly minus clvr-bench, points |"]
    lines += ["| --- | --- | --: | --: | --: | --: | --: | --: |"]
    for row in rows.itertuples():
        top1 = f"{row.top1_mean:.2f}{_shown(' ± {:.2f}', row.top1_std)}"
        knn = _shown("{:.2f}", row.knn_top1_mean)
        speed = f"{row.seconds_mean:,.0f} | {row.views_per_second_mean:,.0f}"
        interval = _shown(" ({:+.2f} to {:+.2f})", row.difference_low, row.difference_high)
        apart = f"{_shown('{:+.2f}', row.difference)}{interval}"
        lines.append(f"| {row.side} | {row.method} | {row.seeds} | {top1} | {knn} | {speed} | {apart} |")
    return "\n".join(lines)


def _shown(template: str, *numbers: float) -> str:
    """Fill a template; nothing where a number is NaN."""
    return "" if any(map(math.isnan, numbers)) else template.format(*numbers)


def chosen(name: str, tasks: Sequence[str], seeds: Sequence[int] | None, epochs: int | None) -> Suite:
    """Return a suite with those tasks alone, and with other seeds and epochs where they are named.

    Raises:
        ClvrBenchError: There is no such suite, or it lacks a task.
    """
    content = load_suite(name).model_dump()
    own = {item if isinstance(item, str) else item.get("name"): item for item in content["pretext_tasks"]}
    missing = [task for task in tasks if task not in own]
    if missing:
        raise ClvrBenchError(f"{name}: no pretext task '{missing[0]}'. Leave it out of --tasks, or name another suite.")
    content["pretext_tasks"] = [own[task] for task in tasks]
    content["seeds"] = content["seeds"] if seeds is None else list(seeds)
    content["budget"] |= {} if epochs is None else {"epochs": epochs}
    return parse_suite(content, name)


def compare(sweep: Sweep, access: Access, console: Console) -> pd.DataFrame:
    """Pretrain and judge lightly's side of every run of a sweep, and put both sides together, see ``summed_up``.

    Args:
        sweep: The suite's; what is not done of it is left out.
        access: How the data are reached.
        console: Is told of every epoch.

    Raises:
        ClvrBenchError: The suite has several runs of a task and a seed, or something went wrong in one.
    """
    runs = [(planned.combination.task.entry.name, planned.combination.seed) for planned in sweep.planned]
    if len(set(runs)) < len(runs):
        raise ClvrBenchError(
            f"{sweep.suite.name}: several runs of a task and a seed. Use a suite that has one of each."
        )
    seeds = []
    for (method, _), planned in zip(runs, sweep.planned, strict=True):
        weights, record = pretrained(planned, sweep, console)
        seeds.append(measured(THEIRS, method, judged(weights, planned, sweep, access), record.compute))
        if planned.standing == "done":
            own = Run.load(planned.folder)
            seeds.append(measured(OURS, method, own, own.pretraining.compute))
    return summed_up(pd.DataFrame(seeds))


def main() -> None:
    """Run what is left, print the table, and write it as CSV."""
    parser = argparse.ArgumentParser(description="Top-1 and speed beside lightly, on the same pictures and budget.")
    parser.add_argument("--suite", default="figure2-cifar10-cpu", help="a built-in suite, or a TOML file")
    parser.add_argument("--data-root", type=Path, help="handed to the data set, as for clvr-bench run")
    parser.add_argument("--results", type=Path, default=Path("results"), help="the folder of all suites' results")
    parser.add_argument("--tasks", nargs="+", choices=sorted(PEERS), default=sorted(PEERS))
    parser.add_argument("--seeds", type=int, nargs="+", help="instead of the suite's")
    parser.add_argument("--epochs", type=int, help="instead of the suite's")
    arguments = parser.parse_args()
    console, access = Console(highlight=False, markup=False, soft_wrap=True), Access(root=arguments.data_root)
    device, where = choose_device("auto"), arguments.suite
    try:
        suite = chosen(arguments.suite, arguments.tasks, arguments.seeds, arguments.epochs)
        sweep = plan(suite, load_plugins(), results=arguments.results, device=device, access=access, where=where)
        rows = compare(sweep, access, console)
    except ClvrBenchError as error:
        parser.exit(2, f"peers.py: {error}\n")
    folder = folder_beside(sweep)
    write_leaderboard(folder)
    rows.to_csv(folder / "peers.csv", index=False)
    console.print(f"{markdown(rows)}\n\nlightly {PEER['version']}. Written: {folder / 'peers.csv'}")
    left = [planned for planned in sweep.planned if planned.standing != "done"]
    if left:
        console.print(f"{len(left)} of {len(sweep.planned)} runs of clvr-bench are not done: {_command(arguments)}")


def _command(arguments: argparse.Namespace) -> str:
    """Return the command that makes the other side."""
    parts = [f"clvr-bench run {arguments.suite} --results {arguments.results}"]
    parts += [f"--data-root {arguments.data_root}"] if arguments.data_root else []
    parts += [f"--pretext-task {task}" for task in arguments.tasks]
    parts += [f"--seeds {','.join(map(str, arguments.seeds))}"] if arguments.seeds else []
    parts += [f"--epochs {arguments.epochs}"] if arguments.epochs else []
    return " ".join(parts)


if __name__ == "__main__":
    main()
