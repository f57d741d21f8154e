from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from clvr_bench.assembly import build_augmentation, build_task
from clvr_bench.combinations import Planner
from clvr_bench.contracts.recipe import Recipe
from clvr_bench.contracts.values import Batch
from clvr_bench.data import prepare
from clvr_bench.draws import SampleRandom
from clvr_bench.errors import RunFailed
from clvr_bench.optimization import build_optimizer, build_schedule
from clvr_bench.plugins import Plugins
from clvr_bench.pretraining import Pretraining, Setting
from clvr_bench.suites import parse_suite
from clvr_bench.visits import VisitOrder, earlier_visits, shuffled

CPU = torch.device("cpu")


@pytest.fixture
def start(plugins: Plugins) -> Callable[..., Pretraining]:
    """Set a pretraining up, without running it."""

    def build(task: str, *, epochs: int = 2, accumulate: int = 1, seed: int = 0, **options: Any) -> Pretraining:
        content = {
            "name": "test",
            "seeds": [seed],
            "encoders": ["tiny"],
            "datasets": [{"name": "shapes", "train_size": 120, "test_size": 20, "image_size": 16}],
            "budget": {"epochs": epochs, "batch_size": 20, "accumulate": accumulate},
            "pretext_tasks": [{"name": task, **options}],
        }
        (combination,) = Planner(parse_suite(content, "test"), plugins.registry).combinations()
        dataset = combination.dataset.entry.factory(None, **combination.dataset.options)
        data = prepare("shapes", dataset, CPU)
        facts = data.facts(combination.task.task.labels)
        built = build_task(combination.task, combination.encoder, seed, facts)
        augmentation = build_augmentation(combination.augmentation, facts)
        return Pretraining(built, Setting(combination, data, augmentation, CPU, "fp32"))

    return build


def finish(run: Pretraining) -> Pretraining:
    while not run.finished:
        run.run_epoch()
    return run


def weights(run: Pretraining) -> torch.Tensor:
    return torch.cat([tensor.flatten().double() for tensor in run.task.state_dict().values()])


@pytest.mark.parametrize("task", ["simclr", "rotation", "supervised", "queued", "adversarial", "clustered", "dropout"])
def test_interrupted_and_resumed_equals_uninterrupted_to_the_bit(start: Callable[..., Pretraining], task: str) -> None:
    whole = finish(start(task, epochs=3))
    first = start(task, epochs=3)
    first.run_epoch()
    saved = torch.load(_through_disk(first.state_dict()), weights_only=True)
    torch.manual_seed(123)
    second = start(task, epochs=3)
    second.load_state_dict(saved)
    finish(second)
    assert torch.equal(weights(whole), weights(second))
    assert [e["loss"] for e in whole.state.history] == [e["loss"] for e in second.state.history]


@pytest.mark.parametrize(
    "task", ["simclr", "supervised", "queued", "adversarial", "clustered", "dropout", "partly_labelled"]
)
def test_stopped_after_every_single_step_equals_uninterrupted_to_the_bit(
    start: Callable[..., Pretraining], task: str
) -> None:
    whole, run = finish(start(task)), start(task)
    stops = 0
    while not run.finished:
        saved = torch.load(_through_disk(run.state_dict()), weights_only=True)
        run = start(task)
        run.load_state_dict(saved)
        stops += not run.run_epoch(pause=lambda: True)
    assert stops == 2 * (run.steps_per_epoch - 1)
    assert torch.equal(weights(whole), weights(run))
    timed = {"seconds": 0.0}
    assert [e | timed for e in whole.state.history] == [e | timed for e in run.state.history]
    assert whole.state.passes == run.state.passes


def test_a_stopped_epoch_is_not_prepared_again(start: Callable[..., Pretraining]) -> None:
    run = start("clustered", epochs=1)
    run.run_epoch(pause=lambda: True)
    head = run.task.head.weight.clone()
    again = start("clustered", epochs=1)
    again.load_state_dict(run.state_dict())
    assert torch.equal(head, again.task.head.weight)
    again.task.before_epoch = lambda epoch: pytest.fail("the epoch began anew")  # type: ignore[method-assign]
    again.run_epoch()


def test_the_order_of_an_epoch_is_announced_part_by_part(start: Callable[..., Pretraining]) -> None:
    run = start("queued", epochs=1, accumulate=4)
    expected: list[list[int]] = []
    asked: list[list[int]] = []
    images = run._split.images
    run._split.expect = lambda batches: expected.extend(index.tolist() for index in batches)  # type: ignore[method-assign]
    run._split.images = lambda index: (asked.append(index.tolist()), images(index))[1]  # type: ignore[method-assign]
    run.run_epoch()
    parts = 4 * run.steps_per_epoch
    assert asked[:parts] == expected[:parts]


@pytest.mark.parametrize(("task", "hint"), [("supervised", ", or accumulate = 2 under"), ("simclr", ".")])
def test_a_step_that_runs_out_of_memory_suggests_a_smaller_batch(
    start: Callable[..., Pretraining], task: str, hint: str
) -> None:
    run = start(task)
    run.task.forward = lambda batch: torch.empty(1 << 46)  # type: ignore[method-assign]  # no machine has it
    with pytest.raises(RunFailed, match=rf"{task}: out of memory at batch size 20\. Choose .* --batch-size 10{hint}"):
        run.run_epoch()


def _through_disk(state: dict[str, Any]) -> Any:
    import io

    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return buffer


def test_other_seeds_give_other_weights(start: Callable[..., Pretraining]) -> None:
    assert not torch.equal(weights(start("simclr", seed=0)), weights(start("simclr", seed=1)))


def test_all_tasks_of_a_seed_start_from_the_same_encoder(start: Callable[..., Pretraining]) -> None:
    first, second = (start(task).task.encoder.state_dict() for task in ("simclr", "rotation"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_val_is_held_out_of_pretraining(start: Callable[..., Pretraining]) -> None:
    run = start("queued", epochs=1)
    data = run.setting.data
    assert len(data.train) + len(data.val) == 120
    images = [{row.numpy().tobytes() for row in s.images(torch.arange(len(s))).pixels} for s in (data.train, data.val)]
    assert not images[0] & images[1]
    assert data.val.labels.bincount().tolist() == [1] * 10


def test_an_epoch_visits_every_sample_of_its_full_batches_once(start: Callable[..., Pretraining]) -> None:
    run = finish(start("queued", epochs=2))
    visits = run.task.state_dict()["queue"]
    assert visits.sum() == 2 * run.steps_per_epoch * 20
    assert visits.max() == 2


def test_after_step_gets_what_all_accumulated_parts_kept(start: Callable[..., Pretraining]) -> None:
    run = finish(start("queued", epochs=1, accumulate=4))
    assert run.task.state_dict()["queue"].sum() == run.steps_per_epoch * 20


def test_accumulation_gives_the_gradient_of_the_whole_batch(start: Callable[..., Pretraining]) -> None:
    gradients = []
    for accumulate in (1, 5):
        run = start("supervised", accumulate=accumulate)
        run.task.eval()  # without batch statistics, parts and whole must agree exactly
        index = torch.arange(20)
        run._optimizers["train"].step = lambda: None  # type: ignore[method-assign]  # keep the weights
        run._step(index, index, run._progress(0, 0))
        gradients.append(torch.cat([p.grad.flatten() for p in run.task.parameters()]))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def test_after_step_moves_the_target_towards_the_encoder(start: Callable[..., Pretraining]) -> None:
    run = start("queued", epochs=4)
    before = run.task.target.network[0].weight.clone()
    run.run_epoch()
    assert not torch.equal(before, run.task.target.network[0].weight)


def test_phases_cycle_and_step_only_their_own_parameters(start: Callable[..., Pretraining]) -> None:
    run = start("adversarial", epochs=1)
    encoder = run.task.encoder.network[0].weight.clone()
    head = run.task.head.weight.clone()
    run._step(torch.arange(20), torch.arange(20), run._progress(0, 0))
    assert torch.equal(encoder, run.task.encoder.network[0].weight)
    assert not torch.equal(head, run.task.head.weight)
    run.run_epoch()
    assert run.task.seen[1:] == (["discriminator", "discriminator", "generator"] * 2)[: run.steps_per_epoch]


def test_before_epoch_sets_the_order_and_resets_modules(start: Callable[..., Pretraining]) -> None:
    run = start("clustered", epochs=1)
    head = run.task.head.weight.clone()
    run.prepare_epoch()
    assert not torch.equal(head, run.task.head.weight)
    run.run_epoch()
    count = len(run.task.visited)
    assert run.task.visited[count // 2 + 1 :].sum() == 0
    assert run.task.visited.sum() == run.steps_per_epoch * 20


def test_reset_clears_the_optimizer_state(start: Callable[..., Pretraining]) -> None:
    from clvr_bench.pretraining import EpochAccess

    run = start("clustered", epochs=2)
    run.run_epoch()
    head, encoder = (
        run._optimizers["train"].state[module.weight]["momentum_buffer"]
        for module in (run.task.head, run.task.encoder.network[0])
    )
    assert head.any()
    EpochAccess(run, VisitOrder(torch.arange(3), 3)).reset(run.task.head)
    assert not head.any()
    assert encoder.any()


def test_features_leave_batch_norm_alone(start: Callable[..., Pretraining]) -> None:
    run = start("clustered")
    run.task.train()
    before = run.task.encoder.network[1].running_mean.clone()
    run.features(run.task.encoder, run.setting.data.train)
    assert torch.equal(before, run.task.encoder.network[1].running_mean)
    assert run.task.encoder.network[1].training


def test_partial_labels_are_hidden_but_for_a_stratified_part(start: Callable[..., Pretraining]) -> None:
    run = finish(start("partly_labelled", epochs=2, fraction=0.2))
    shown = run._labels[run._labels >= 0]
    assert shown.bincount().tolist() == [2] * 10
    seen: list[Batch] = run.task.labelled_seen
    assert all(len(batch) == 10 and (batch.labels >= 0).all() for batch in seen)
    pool = set((run._labels >= 0).nonzero()[:, 0].tolist())
    assert {i for batch in seen[:2] for i in batch.index.tolist()} == pool


def test_accumulated_parts_share_out_the_labelled_stream(start: Callable[..., Pretraining]) -> None:
    whole, parts = (start("partly_labelled", accumulate=n, fraction=0.2) for n in (1, 4))
    for run in (whole, parts):
        run._step(torch.arange(20), torch.arange(20), run._progress(0, 0))
    seen = [torch.cat([batch.index for batch in run.task.labelled_seen]).tolist() for run in (whole, parts)]
    assert len(seen[0]) == 10
    assert seen[0] == seen[1]


def test_coarse_labels_are_the_coarse_classes(start: Callable[..., Pretraining]) -> None:
    run = start("coarse_labelled")
    dataset = run.setting.data.dataset
    fine = run.setting.data.train.labels
    assert run._labels.tolist() == [dataset.coarse[label] for label in fine]
    assert run.setting.data.facts("coarse").num_classes == len(dataset.coarse_names)


def test_a_task_without_labels_sees_none(start: Callable[..., Pretraining]) -> None:
    run = start("simclr")
    assert (run._labels == -1).all()
    assert run.setting.data.facts("none").num_classes is None


def test_roles_and_views_reach_the_task(start: Callable[..., Pretraining]) -> None:
    run = start("multi_view", epochs=1)
    batch = run.batch(*[torch.arange(4)] * 3, run._progress(0, 0), "train")
    assert [tuple(view.shape) for view in batch.views] == [(4, 3, 16, 16), (4, 3, 8, 8), (4, 3, 8, 8)]
    finish(run)


def test_encoder_options_reach_the_encoder_and_its_siblings(start: Callable[..., Pretraining]) -> None:
    encoder = start("grey").task.encoder
    assert encoder.network[0].in_channels == 1
    sibling = encoder.sibling(width=4)
    assert (sibling.network[0].in_channels, sibling.feature_dim) == (1, 4)
    assert not torch.equal(encoder.sibling().network[0].weight, encoder.network[0].weight)


def test_a_samples_views_do_not_depend_on_its_batch(start: Callable[..., Pretraining]) -> None:
    run = start("simclr")
    together, alone = (
        run.batch(index, index, index, run._progress(0, 0), "train") for index in (torch.arange(20), torch.tensor([7]))
    )
    for whole, one in zip(together.views, alone.views, strict=True):
        torch.testing.assert_close(whole[7], one[0], rtol=0, atol=1e-6)


def test_encoder_passes_count_pictures_encoded_in_training(start: Callable[..., Pretraining]) -> None:
    run = finish(start("rotation", epochs=1))
    assert run.state.passes == 4 * 20 * run.steps_per_epoch


def test_the_history_has_every_epoch(start: Callable[..., Pretraining]) -> None:
    history = finish(start("simclr", epochs=2)).state.history
    assert [entry["epoch"] for entry in history] == [1, 2]
    assert {"loss", "learning_rate", "knn_top1", "seconds", "contrastive_top1"} <= set(history[0])


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("raises_in_forward", r"raises_in_forward: forward raised KeyError: 'views' \(faulty.py:\d+\)"),
        ("raises_in_backward", "the backward pass raised RuntimeError"),
        ("loses_numbers", "loss became NaN or infinite in epoch 1"),
        ("loses_gradient", "one number with a gradient"),
        ("returns_a_tensor", "must return a StepOutput, got Tensor"),
    ],
)
def test_a_faulty_task_is_named_with_its_fault(start: Callable[..., Pretraining], task: str, message: str) -> None:
    with pytest.raises(RunFailed, match=message):
        start(task).run_epoch()


def test_the_schedule_warms_up_then_falls_along_a_cosine() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = build_optimizer([{"params": [weight]}], Recipe(learning_rate=0.1, warmup=0.1), batch_size=512)
    schedule = build_schedule(optimizer, Recipe(learning_rate=0.1, warmup=0.1), total_steps=100)
    rates = []
    for step in range(100):
        schedule.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[0] == pytest.approx(0.02)
    assert max(rates) == rates[10] == pytest.approx(0.2)
    assert rates[55] == pytest.approx(0.1)
    assert 0 < rates[99] < 1e-3


def test_a_constant_schedule_stays_at_its_peak() -> None:
    recipe = Recipe(optimizer="adamw", learning_rate=0.1, scaling="none", warmup=0.0, schedule="constant")
    optimizer = build_optimizer([{"params": [torch.nn.Parameter(torch.zeros(1))]}], recipe, batch_size=512)
    schedule = build_schedule(optimizer, recipe, total_steps=10)
    schedule.step_update(9)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("recipe", "betas"),
    [
        (Recipe(optimizer="adam", betas=(0, 0.99)), (0.0, 0.99)),
        (Recipe(optimizer="adamw", betas=(0.9, 0.95)), (0.9, 0.95)),
        (Recipe(optimizer="lamb", betas=(0.5, 0.95)), (0.5, 0.95)),
        (Recipe(optimizer="adamw"), (0.9, 0.999)),
        (Recipe(optimizer="sgd", betas=(0.9, 0.95)), None),
    ],
)
def test_betas_reach_optimizers_that_have_them(recipe: Recipe, betas: tuple[float, float] | None) -> None:
    optimizer = build_optimizer([{"params": [torch.nn.Parameter(torch.zeros(1))]}], recipe, batch_size=256)
    assert optimizer.param_groups[0].get("betas") == betas


@pytest.mark.parametrize(
    ("recipe", "moved"),
    [
        (Recipe(optimizer="lars", trust_coefficient=0.02), 0.02 * 0.5),  # rate times the part of its norm
        (Recipe(optimizer="lars"), 0.001 * 0.5),
        (Recipe(optimizer="larc", trust_coefficient=0.02), 0.02),  # the part itself, where the rate allows it
        (Recipe(optimizer="larc", trust_coefficient=20.0), 0.5 * 0.1),  # clipped: the rate times the gradient
        (Recipe(optimizer="momentum", trust_coefficient=20.0), 0.5 * 0.1),
    ],
)
def test_a_trust_coefficient_bounds_the_steps_of_lars(recipe: Recipe, moved: float) -> None:
    recipe = replace(recipe, learning_rate=0.5, scaling="none", weight_decay=1e-12, momentum=0.0)
    weight = torch.nn.Parameter(torch.tensor([[0.6, 0.8]]))  # of length 1
    weight.grad = torch.tensor([[0.0, 0.1]])
    build_optimizer([{"params": [weight]}], recipe, batch_size=256).step()
    assert weight.tolist() == [pytest.approx([0.6, 0.8 - moved])]


def test_biases_and_norms_do_not_decay(start: Callable[..., Pretraining]) -> None:
    optimizer = start("simclr")._optimizers["train"]
    for group in optimizer.param_groups:
        assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"])


def test_a_second_visit_draws_afresh() -> None:
    order = VisitOrder(torch.tensor([3, 3, 1, 3]), count=5)
    ((index, keys),) = order.batches(4)
    assert index.tolist() == [3, 3, 1, 3]
    draws = SampleRandom.keyed(0, 0, keys)("crop").uniform()
    assert len(set(draws.tolist())) == 4
    assert earlier_visits(index).tolist() == [0, 1, 0, 2]


def test_the_order_is_a_permutation_that_changes_by_epoch() -> None:
    values = torch.arange(100)
    first, second = (shuffled(values, 7, epoch) for epoch in (0, 1))
    assert sorted(first.tolist()) == values.tolist()
    assert first.tolist() != second.tolist()


def test_visit_refuses_what_would_change_the_budget(start: Callable[..., Pretraining], tmp_path: Path) -> None:
    from clvr_bench.pretraining import EpochAccess

    run = start("clustered")
    access = EpochAccess(run, VisitOrder(torch.arange(3), 3))
    with pytest.raises(ValueError, match="visit takes 110 sample numbers"):
        access.visit(torch.arange(5))
