from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from lightly.loss import DINOLoss
from lightly.models.modules import DINOProjectionHead
from torch import Tensor, nn

from clvr_bench import Batch, ClvrBenchError, DataFacts, Progress, SampleRandom
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind
from clvr_plugins.pretext_tasks.dino import DINO, Head, log_probabilities, warming_temperature

FACTS = DataFacts("image", train_size=64, image_size=16)
MULTI_CROP = ("global", "global", "local", "local", "local")
SIZES = {"global": 16, "local": 8}
PICTURES = 6
SMALL = {"output_dim": 7, "hidden_dim": 16, "bottleneck_dim": 5, "temperature_epochs": 0, "freeze_epochs": 0}
Build = Callable[..., DINO]


def naive_loss(outputs: Tensor, taught: Tensor, center: Tensor, tau_s: float, tau_t: float) -> float:
    """Equations 1 and 3 and H of algorithm 1, as they are printed, averaged over pictures and pairs of views."""
    s, t, c = (tensor.double().numpy() for tensor in (outputs, taught, center))

    def softmax(values: Any) -> Any:
        exponents = np.exp(values)
        return exponents / exponents.sum()

    terms = [
        -float((softmax((t[x, i] - c) / tau_t) * np.log(softmax(s[x_, i] / tau_s))).sum())
        for x in range(len(t))
        for x_ in range(len(s))
        for i in range(s.shape[1])
        if x_ != x
    ]
    return sum(terms) / len(terms)


def views_of(roles: Sequence[str] = MULTI_CROP, seed: int = 0, pictures: int = PICTURES) -> list[Tensor]:
    """Views of pictures that differ in color, from one another and from view to view."""
    generator = torch.Generator().manual_seed(seed)
    colors = [torch.rand(pictures, 3, 1, 1, generator=generator) for _ in roles]
    return [
        0.7 * color + 0.3 * torch.rand(pictures, 3, SIZES[role], SIZES[role], generator=generator)
        for role, color in zip(roles, colors, strict=True)
    ]


def batch_of(views: list[Tensor], roles: tuple[str, ...] = MULTI_CROP, step: int = 0, epoch: int = 0) -> Batch:
    index = torch.arange(len(views[0]))
    random = SampleRandom.keyed(0, epoch, index)
    return Batch(views, index, torch.full_like(index, -1), random, Progress(step, 100, epoch, 10), roles=roles)


@pytest.fixture
def build(plugins: Plugins) -> Build:
    def task(encoder: str = "tiny", **options: Any) -> DINO:
        torch.manual_seed(0)
        built = plugins.registry.get(Kind.ENCODER, encoder).factory()
        built.feature_dim = built(torch.rand(2, 3, 16, 16)).shape[1]
        return DINO(built, FACTS, **{**SMALL, **options})

    return task


def take_step(task: DINO, batch: Batch, rate: float = 0.5) -> float:
    """One optimizer step as the harness takes it: the loss before it."""
    optimizer = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], lr=rate)
    output = task(batch)
    output.loss.backward()
    optimizer.step()
    task.zero_grad()
    with torch.no_grad():
        task.after_step(output.kept, batch.progress)
    return output.loss.item()


def outputs_of(task: DINO, batch: Batch) -> tuple[Tensor, Tensor]:
    """The student's outputs (V, B, K), view by view, and the teacher's of the first two (2, B, K)."""
    with torch.no_grad():
        student = [task.head(task.encoder(view)) for view in batch.views]
        return torch.stack(student), torch.stack([task.teacher(view) for view in batch.views[:2]])


def uncentred(task: DINO) -> DINO:
    """Give a task strong weights, a teacher of its own and a centre that is not zero, so that none goes unnoticed."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        task.center.copy_(0.1 * torch.randn_like(task.center))
    return task


def test_a_batchs_loss_is_equation_3(build: Build) -> None:
    task = uncentred(build(student_temperature=0.2, teacher_temperature=(0.03, 0.05))).eval()
    batch = batch_of(views_of())
    expected = naive_loss(*outputs_of(task, batch), task.center, 0.2, 0.05)
    assert task(batch).loss.item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("locals_", [0, 3])
def test_the_loss_and_the_moved_centre_are_lightlys(build: Build, locals_: int) -> None:
    task, roles = uncentred(build(teacher_temperature=(0.04, 0.04))).eval(), MULTI_CROP[: 2 + locals_]
    batch = batch_of(views_of(roles), roles)
    student, teacher = outputs_of(task, batch)
    theirs = DINOLoss(output_dim=7, teacher_temp=0.04, student_temp=0.1, center_momentum=0.9)
    theirs.center = task.center.clone()[None, None]
    loss = theirs(list(teacher), list(student))
    output = task(batch)
    torch.testing.assert_close(output.loss.detach(), loss, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        task.after_step(output.kept, batch.progress)
    torch.testing.assert_close(task.center, theirs.center[0, 0])


def test_two_alike_views_both_have_targets(build: Build) -> None:
    task, views = uncentred(build()).eval(), views_of(("global", "global"))
    alike = task(batch_of(views, ())).loss
    assert torch.equal(alike, task(batch_of(views, ("global", "global"))).loss)
    assert not torch.equal(alike, task(batch_of(views, ("global", "local"))).loss)


def test_the_teacher_sees_global_views_alone_and_the_student_all_each_size_in_one_batch(build: Build) -> None:
    task, seen = build(), []
    for network in (task.encoder, task.teacher):
        network.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    task(batch_of(views_of()))
    globals_, locals_ = (2 * PICTURES, 3, 16, 16), (3 * PICTURES, 3, 8, 8)
    assert seen == [globals_, locals_, globals_]


def test_outputs_that_say_nothing_have_the_loss_and_the_entropy_of_chance(build: Build) -> None:
    task = build()
    nn.init.zeros_(task.head.last.weight)
    nn.init.zeros_(task.teacher[1].last.weight)
    output = task(batch_of(views_of()))
    assert output.loss.item() == pytest.approx(math.log(7), abs=1e-5)
    assert float(output.logs["target_entropy"]) == pytest.approx(math.log(7), abs=1e-5)
    assert float(output.logs["divergence"]) == pytest.approx(0, abs=1e-5)


def test_entropy_and_divergence_are_those_of_equation_5(build: Build) -> None:
    task = uncentred(build()).eval()
    batch = batch_of(views_of(("global", "global")), ("global", "global"))
    (s1, s2), (t1, t2) = outputs_of(task, batch)
    pairs = [(((t - task.center) / 0.07).softmax(dim=1), (s / 0.1).softmax(dim=1)) for t, s in ((t1, s2), (t2, s1))]
    entropy = torch.stack([-(p * p.log()).sum(dim=1).mean() for p, _ in pairs]).mean()
    divergence = torch.stack([(p * (p / q).log()).sum(dim=1).mean() for p, q in pairs]).mean()
    logs = task(batch).logs
    assert float(logs["target_entropy"]) == pytest.approx(entropy.item(), abs=1e-4)
    assert float(logs["divergence"]) == pytest.approx(divergence.item(), abs=1e-4)
    assert divergence > 0.01


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_head_is_lightlys(batch_norm: bool) -> None:
    torch.manual_seed(0)
    ours = Head(8, 16, 5, 7, batch_norm=batch_norm)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates the weight normalization that lightly uses
        theirs = DINOProjectionHead(8, 16, 5, 7, batch_norm=batch_norm)
    theirs.layers.load_state_dict(ours.layers.state_dict())
    with torch.no_grad():
        theirs.last_layer.weight_v.copy_(ours.last.weight)
    features = torch.randn(9, 8)
    torch.testing.assert_close(ours(features), theirs(features))
    assert [type(layer) for layer in ours.layers] == [type(layer) for layer in theirs.layers]


def test_the_heads_linear_layers_start_as_the_authors() -> None:
    torch.manual_seed(0)
    linear = [layer for layer in Head(200, 300, 100, 7, batch_norm=False).layers if isinstance(layer, nn.Linear)]
    assert [layer.weight.std().item() for layer in linear] == pytest.approx([0.02] * 3, rel=0.05)
    assert not any(layer.bias.any() for layer in linear)


def test_outputs_stay_in_float32_under_autocast() -> None:
    head = Head(8, 16, 5, 7, batch_norm=False)
    head.layers = nn.Sequential()  # what remains is the normalized last layer
    features = torch.randn(9, 5)
    with torch.autocast("cpu", torch.bfloat16):
        inside = head(features)
    assert torch.equal(inside, head(features))


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.04), (10, 0.04 + 0.03 / 4), (20, 0.055), (40, 0.07), (41, 0.07), (99, 0.07)]
)
def test_the_temperature_warms_up_linearly_and_stays(step: int, expected: float) -> None:
    progress = Progress(step, 100, step // 10, 10)
    assert warming_temperature((0.04, 0.07), 4, progress) == pytest.approx(expected)
    assert warming_temperature((0.04, 0.07), 0, progress) == 0.07


def test_the_teachers_temperature_follows_the_progress_of_the_batch(build: Build) -> None:
    task = uncentred(build(teacher_temperature=(0.04, 0.08), temperature_epochs=4)).eval()
    batch = batch_of(views_of(), step=20, epoch=2)
    expected = naive_loss(*outputs_of(task, batch), task.center, 0.1, 0.06)
    assert task(batch).loss.item() == pytest.approx(expected, abs=1e-4)


def test_log_probabilities_are_logarithms_of_equation_1() -> None:
    outputs = torch.tensor([[0.1, 0.3], [0.0, 0.0]])
    expected = [[1 / (1 + math.exp(2)), 1 / (1 + math.exp(-2))], [0.5, 0.5]]
    torch.testing.assert_close(log_probabilities(outputs, 0.1).exp(), torch.tensor(expected))


@pytest.mark.parametrize(("step", "momentum"), [(0, 0.9), (50, 0.95)])
def test_the_teacher_follows_ever_slower_and_the_centre_by_equation_4(build: Build, step: int, momentum: float) -> None:
    task = uncentred(build(target_momentum=0.9, center_momentum=0.8)).eval()
    batch = batch_of(views_of(), step=step)
    old, center = [parameter.clone() for parameter in task.teacher.parameters()], task.center.clone()
    _, taught = outputs_of(task, batch)
    take_step(task, batch)
    trained = [*task.encoder.parameters(), *task.head.parameters()]
    for before, after, source in zip(old, task.teacher.parameters(), trained, strict=True):
        torch.testing.assert_close(after, momentum * before + (1 - momentum) * source)
    torch.testing.assert_close(task.center, 0.8 * center + 0.2 * taught.mean(dim=(0, 1)))


def moved_names(task: DINO, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in task.state_dict().items() if not torch.equal(before[name], value)}


def test_forward_moves_nothing_but_batch_norm_and_after_step_what_moves_says(build: Build) -> None:
    task, batch = build(batch_norm=True), batch_of(views_of())
    before = copy.deepcopy(task.state_dict())
    output = task(batch)
    assert moved_names(task, before) == {name for name in before if "running" in name or "num_batches" in name}
    take_step(task, batch)
    before = copy.deepcopy(task.state_dict())
    task.after_step(output.kept, batch.progress)
    assert {name.split(".")[0] for name in moved_names(task, before)} == set(task.moves) == {"teacher", "center"}


def reached_by_the_gradient(task: DINO, batch: Batch) -> set[str]:
    task(batch).loss.backward()
    return {name for name, parameter in task.named_parameters() if parameter.grad is not None and parameter.grad.any()}


def test_the_gradient_reaches_the_student_and_nothing_of_the_teacher(build: Build) -> None:
    task = build()
    reached = reached_by_the_gradient(task, batch_of(views_of()))
    assert reached == {name for name, _ in task.named_parameters() if not name.startswith("teacher")}
    assert reached == {name for name, parameter in task.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(("epoch", "trained"), [(0, False), (1, False), (2, True)])
def test_the_last_layer_stays_fixed_in_the_first_epochs(build: Build, epoch: int, trained: bool) -> None:
    task = build(freeze_epochs=2)
    reached = reached_by_the_gradient(task, batch_of(views_of(), epoch=epoch))
    assert ("head.last.weight" in reached) == trained
    assert (task.head.last.weight.grad is None) == (not trained)  # so that no optimizer moves it, not by decay either
    assert "head.layers.0.weight" in reached


def test_the_teachers_encoder_is_evaluated(build: Build) -> None:
    task, view = uncentred(build()).eval(), views_of(("global",))[0]
    features = task.representation()(view)
    assert not torch.allclose(features, task.encoder(view))
    torch.testing.assert_close(task.teacher[1](features), task.teacher(view))


def test_a_vision_transformer_takes_views_of_both_sizes(build: Build) -> None:
    reached = reached_by_the_gradient(build("vit_micro_patch4_32"), batch_of(views_of()))
    assert "encoder.network.patch_embed.proj.weight" in reached


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"student_temperature": 0.0}, r"student_temperature must be positive, got 0\.0\. Typical: 0\.1"),
        (
            {"teacher_temperature": (0.0, 0.07)},
            r"teacher_temperature must be two positive numbers, got \(0\.0, 0\.07\)",
        ),
        ({"temperature_epochs": -1}, r"temperature_epochs must not be negative, got -1\. Typical: 30"),
        ({"center_momentum": 1.0}, r"center_momentum must be in \[0, 1\), got 1\.0\. Typical: 0\.9"),
        ({"target_momentum": 1.1}, r"target_momentum must be in \[0, 1\], got 1\.1\. Typical"),
    ],
)
def test_bad_options_are_refused(build: Build, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ClvrBenchError, match=f"dino: {message}"):
        build(**options)


@pytest.mark.parametrize(
    ("roles", "found"),
    [(("local", "local"), r"\('local', 'local'\)"), ((), "1 that are alike"), (("global",), "global")],
)
def test_views_that_do_not_fit_are_refused(build: Build, roles: tuple[str, ...], found: str) -> None:
    message = (
        f"dino: expected some global views among at least 2 views, got .*{found}.*Use the augmentation 'multicrop'"
    )
    with pytest.raises(ClvrBenchError, match=message):
        build()(batch_of(views_of(roles or ("global",)), roles))


def test_the_student_learns_what_the_teacher_says_within_a_few_steps(build: Build) -> None:
    task = uncentred(build(target_momentum=1.0))
    batch = batch_of(views_of(pictures=12))
    optimizer = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], lr=0.5)
    divergences = []
    for _ in range(20):
        output = task(batch)
        divergences.append(float(output.logs["divergence"]))
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert divergences[-1] < 0.2 * divergences[0]
