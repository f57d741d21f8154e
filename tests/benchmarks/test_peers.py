"""lightly's side of the comparison: steps as far as the suite's own, the same distributions of views, one probe."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest
import torch
from rich.console import Console
from scipy.stats import t as student
from torch import Tensor, nn

from benchmarks import peers
from clvr_bench import Batch, ClvrBenchError, DataFacts, PretextTask, Progress, Recipe, SampleRandom
from clvr_bench.assembly import build_task_on
from clvr_bench.data import Access
from clvr_bench.optimization import build_optimizer, build_schedule
from clvr_bench.planning import Planned
from clvr_bench.plugins import Plugins
from clvr_bench.records import PretrainingRecord, load_runs
from clvr_bench.sweep import Sweep, plan
from clvr_bench.toolbox import view_similarities
from clvr_bench.verify import verify
from clvr_plugins.augmentations.byol import BYOLAugmentation
from clvr_plugins.augmentations.crop import CropFlip
from clvr_plugins.augmentations.simclr import SimCLRAugmentation
from clvr_plugins.pretext_tasks.byol import prediction_error
from clvr_plugins.pretext_tasks.simclr import nt_xent
from tests.conftest import CONTRACT_PLUGINS, Answer

RESULTS = Path(__file__).parents[2] / "results"
FACTS = DataFacts("image", train_size=64, image_size=32)
CPU = torch.device("cpu")
SUITE = """
name = "small"
seeds = [3, 4]
encoders = ["tiny"]
datasets = [{ name = "shapes", train_size = 120, test_size = 60, image_size = 16 }]
evaluations = ["linear", "knn"]
budget = { epochs = 2, batch_size = 20, precision = "fp32" }

[[pretext_tasks]]
name = "simclr"
projection_dim = 8
temperature = 0.3
augmentation = { name = "simclr", area = [0.3, 1.0] }
recipe = { optimizer = "sgd", learning_rate = 0.4, weight_decay = 0.05 }

[[pretext_tasks]]
name = "byol"
projection_dim = 8
hidden_dim = 16
target_momentum = 0.9
recipe = { optimizer = "sgd", learning_rate = 0.4, weight_decay = 0.05 }
"""


def vectors(count: int, seed: int) -> Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def suite_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SUITE)
    return path


@pytest.fixture
def sweep(suite_file: Path, tmp_path: Path, plugins: Plugins) -> Callable[[str], Sweep]:
    def planned(task: str) -> Sweep:
        suite = peers.chosen(str(suite_file), [task], [3], None)
        return plan(suite, plugins, results=tmp_path / "results", device=CPU)

    return planned


def test_simclrs_loss_is_lightlys(sweep: Callable[[str], Sweep]) -> None:
    first, second = vectors(6, seed=0), vectors(6, seed=1)
    theirs = peers.Pretraining(sweep("simclr").planned[0], sweep("simclr")).peer.loss(first, second)
    ours = nt_xent(view_similarities(torch.cat([first, second]), temperature=0.3))
    torch.testing.assert_close(peers.LightlySimCLR.scale * theirs, ours)


def test_byols_loss_is_four_and_four_times_lightlys(sweep: Callable[[str], Sweep]) -> None:
    first, second, first_target, second_target = (vectors(6, seed) for seed in range(4))
    peer = peers.Pretraining(sweep("byol").planned[0], sweep("byol")).peer
    theirs = peer.loss(first, second, first_target, second_target)
    ours = (prediction_error(first, second_target) + prediction_error(second, first_target)).mean()
    torch.testing.assert_close(4 + peers.LightlyBYOL.scale * theirs, ours)


def suites_own(planned: Planned, batches: Sequence[list[Tensor]]) -> PretextTask:
    """Train the suite's own task on some batches of views."""
    combination = planned.combination
    recipe, budget = combination.task.recipe, combination.budget
    steps = budget.epochs * (len(planned.data.train) // budget.batch_size)
    task = build_task_on(CPU, combination, planned.data.facts("none")).train()
    optimizer = build_optimizer(task.parameter_groups("train"), recipe, budget.batch_size)
    schedule = build_schedule(optimizer, recipe, steps)
    for number, views in enumerate(batches):
        progress = Progress(number, steps, 0, budget.epochs)
        task.zero_grad(set_to_none=True)
        index = torch.arange(budget.batch_size)
        output = task(Batch(views, index, -torch.ones_like(index), SampleRandom.keyed(0, 0, index), progress))
        output.loss.backward()
        schedule.step_update(number)
        optimizer.step()
        task.after_step(output.kept, progress)
    return task


def weights(*modules: nn.Module) -> list[Tensor]:
    return [parameter.detach() for module in modules for parameter in module.parameters()]


def test_byols_steps_and_target_are_the_suites(sweep: Callable[[str], Sweep]) -> None:
    byol = sweep("byol")
    (planned,) = byol.planned
    generator = torch.Generator().manual_seed(0)
    batches = [[torch.rand(20, 3, 16, 16, generator=generator) for _ in range(2)] for _ in range(5)]
    theirs = peers.Pretraining(planned, byol)
    start = [weight.clone() for weight in weights(theirs.peer.encoder)]
    theirs.peer.train()
    for number, views in enumerate(batches):
        theirs.step(views, number)
    ours, peer = suites_own(planned, batches), theirs.peer
    assert isinstance(peer, peers.LightlyBYOL)
    for mine, other in (
        ((ours.encoder, ours.projector, ours.predictor), (peer.encoder, peer.projection_head, peer.prediction_head)),
        ((ours.target,), (peer.encoder_momentum, peer.projection_head_momentum)),
    ):
        torch.testing.assert_close(weights(*mine), weights(*other), atol=1e-4, rtol=1e-3)
    moved = max(float((a - b).abs().max()) for a, b in zip(start, weights(peer.encoder), strict=True))
    assert moved > 0.01  # far beyond the tolerance


def test_simclr_starts_from_the_suites_encoder(sweep: Callable[[str], Sweep]) -> None:
    simclr = sweep("simclr")
    (planned,) = simclr.planned
    own = build_task_on(CPU, planned.combination, planned.data.facts("none"))
    assert all(map(torch.equal, weights(own.encoder), weights(peers.Pretraining(planned, simclr).peer.encoder)))


def test_a_recipe_whose_steps_have_another_form_is_not_scaled() -> None:
    recipe = Recipe(optimizer="adamw")
    assert peers.scaled(recipe, 1.0) == recipe
    with pytest.raises(ClvrBenchError, match="'adamw' cannot be scaled"):
        peers.scaled(recipe, 4.0)


def test_views_have_the_suites_distributions() -> None:
    made = peers.transform(BYOLAugmentation(FACTS, area=(0.3, 1.0)))
    first, second = ([str(part) for part in view.transform.transforms] for view in made.transforms)
    assert any("RandomResizedCrop" in part and "(32, 32)" in part and "scale=(0.3, 1.0)" in part for part in first)
    jitter = ("brightness=(0.6, 1.4)", "contrast=(0.6, 1.4)", "saturation=(0.8, 1.2)", "hue=(-0.1, 0.1)")
    assert all(value in "".join(view) for value in jitter for view in (first, second))
    assert [view.transform.transforms[7].prob for view in made.transforms] == [0.0, 0.2]  # solarization
    assert [view.transform.transforms[6].prob for view in made.transforms] == [0.0, 0.0]  # no blur at 32 px
    simclr = peers.transform(SimCLRAugmentation(FACTS)).transforms[0].transform.transforms
    assert "brightness=(0.6, 1.4)" in str(simclr[4])
    assert "hue=(-0.1, 0.1)" in str(simclr[4])


def test_what_lightly_has_not_is_refused() -> None:
    with pytest.raises(ClvrBenchError, match="'simclr' and 'byol' alone"):
        peers.transform(CropFlip(FACTS))
    with pytest.raises(ClvrBenchError, match=r"area must end with 1, not 0\.8"):
        peers.transform(SimCLRAugmentation(FACTS, area=(0.2, 0.8)))


def test_the_interval_of_a_difference_is_welchs() -> None:
    first, second = [50.0, 52.0, 54.0], [49.0, 49.5]
    variances = [4 / 3, 0.125 / 2]  # of the means
    degrees = sum(variances) ** 2 / (variances[0] ** 2 / 2 + variances[1] ** 2 / 1)
    half = student.ppf(0.975, degrees) * math.sqrt(sum(variances))
    assert peers.difference(first, second) == pytest.approx((2.75, 2.75 - half, 2.75 + half))
    middle, *ends = peers.difference([50.0], second)
    assert middle == pytest.approx(0.75)
    assert all(map(math.isnan, ends))


def test_a_side_without_seeds_leaves_the_difference_open() -> None:
    seed = {"side": "lightly", "method": "byol", "top1": 50.0, "knn_top1": math.nan}
    rows = peers.summed_up(pd.DataFrame([{**seed, "seconds": 9.0, "views_per_second": 300.0}]))
    assert rows[["top1_std", *peers.DIFFERENCE]].isna().all(axis=None)
    assert peers.markdown(rows).splitlines()[-1] == "| lightly | byol | 1 | 50.00 |  | 9 | 300 |  |"


def test_a_task_that_the_suite_lacks_is_named(suite_file: Path) -> None:
    suite_file.write_text(SUITE.partition('[[pretext_tasks]]\nname = "byol"')[0])
    with pytest.raises(ClvrBenchError, match="no pretext task 'byol'"):
        peers.chosen(str(suite_file), ["simclr", "byol"], None, None)


def test_a_suite_with_several_runs_of_a_seed_is_refused(suite_file: Path, tmp_path: Path, plugins: Plugins) -> None:
    suite_file.write_text(SUITE.replace("temperature = 0.3", "temperature = [0.3, 0.5]"))
    suite = peers.chosen(str(suite_file), ["simclr"], [3], None)
    several = plan(suite, plugins, results=tmp_path / "results", device=CPU)
    with pytest.raises(ClvrBenchError, match="several runs of a task and a seed"):
        peers.compare(several, Access(), Console())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--suite", "nowhere.toml"], "nowhere.toml: no such suite file."),
        (
            ["--suite", "small.toml", "--epochs", "0"],
            "budget.epochs: input should be greater than or equal to 1, got 0.",
        ),
    ],
)
def test_what_is_to_be_mended_is_said_in_a_line(
    flags: list[str],
    message: str,
    suite_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(suite_file.parent)
    monkeypatch.setattr("sys.argv", ["peers.py", *flags])
    with pytest.raises(SystemExit) as stopped:
        peers.main()
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # of torch's data loader
def test_both_sides_come_into_one_table_and_nothing_is_run_twice(
    cli: Callable[..., Answer], suite_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLVR_BENCH_PLUGINS_DIR", str(CONTRACT_PLUGINS))

    def compare() -> str:
        monkeypatch.setattr("sys.argv", ["peers.py", "--suite", str(suite_file)])
        peers.main()
        return capsys.readouterr().out

    out = compare()
    assert out.count("epoch 2 of 2") == 4
    assert "4 of 4 runs of clvr-bench are not done" in out
    (command,) = (line.partition(": clvr-bench ")[2] for line in out.splitlines() if "are not done" in line)
    assert cli(*command.split()).code == 0
    monkeypatch.setattr(peers, "Pretraining", None)  # nothing is left to pretrain
    folder = Path("results/small-lightly")
    for weights in folder.rglob("weights.safetensors"):  # as where records come out of version control
        weights.unlink()
    out = compare()
    assert "epoch" not in out
    assert "not done" not in out
    table = pd.read_csv(folder / "peers.csv")
    assert table[["method", "side", "seeds"]].to_numpy().tolist() == [
        ["byol", "clvr-bench", 2],
        ["byol", "lightly", 2],
        ["simclr", "clvr-bench", 2],
        ["simclr", "lightly", 2],
    ]
    assert table["difference"].notna().tolist() == [False, True, False, True]
    assert table["top1_mean"][1] - table["top1_mean"][0] == pytest.approx(table["difference"][1], abs=1e-3)
    checked = verify(folder)
    assert (checked.problems, checked.tables) == ((), 1)


@pytest.mark.parametrize("folder", sorted(RESULTS.glob("*-lightly")), ids=lambda folder: folder.name)
def test_a_committed_table_is_what_its_records_say(folder: Path) -> None:
    own = {run.pretraining.id: run for run in load_runs(RESULTS / folder.name.removesuffix("-lightly"))}
    judged = {run.pretraining.identity["pretext_task"]["options"]["file"]: run for run in load_runs(folder)}
    seeds = []
    for path in folder.glob("pretrained/*/pretraining.json"):
        record = PretrainingRecord.load(path)
        method = record.identity["pretext_task"]["name"]
        seeds.append(peers.measured("lightly", method, judged.pop(f"sha256:{record.weights}"), record.compute))
        beside = {name: value for name, value in record.identity.items() if name != "peer"}
        run = own[PretrainingRecord(beside, facts=record.facts).id]
        seeds.append(peers.measured("clvr-bench", method, run, run.pretraining.compute))
    assert not judged
    pd.testing.assert_frame_equal(
        pd.read_csv(folder / "peers.csv"), peers.summed_up(pd.DataFrame(seeds)), check_dtype=False
    )
