from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from clvr_bench import Batch, ClvrBenchError, DataFacts, EncoderFacts, Phase, Progress, SampleRandom
from clvr_bench.contracts.recipe import Recipe
from clvr_bench.optimization import build_optimizer, build_schedule
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind
from clvr_plugins.pretext_tasks.bigbigan import (
    BigBiGAN,
    Discriminator,
    discriminator_loss,
    encoder_generator_loss,
    sample_latents,
)

FACTS = DataFacts("image", train_size=8, image_size=8)
PROGRESS = Progress(0, 1, 0, 1)
SMALL: dict[str, Any] = {"latent_dim": 3, "width": 4, "hidden_dim": 8}
PHASES = ("discriminator", "generator")


def naive_losses(real: Tensor, fake: Tensor) -> tuple[float, float]:
    """L_D and L_EG of section 2 as they are printed: over both kinds of pairs, y = +1 and y = -1."""

    def h(t: float) -> float:
        return max(0.0, 1 - t)

    scores = {+1: real.double().tolist(), -1: fake.double().tolist()}
    loss_d = sum(np.mean([h(y * s_x) + h(y * s_z) + h(y * s_xz) for s_x, s_z, s_xz in scores[y]]) for y in scores)
    loss_eg = sum(np.mean([y * (s_x + s_z + s_xz) for s_x, s_z, s_xz in scores[y]]) for y in scores)
    return float(loss_d), float(loss_eg)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pictures(count: int, size: int = 8) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def batch_of(images: Tensor, phase: str, index: Tensor | None = None) -> Batch:
    index = torch.arange(len(images)) if index is None else index
    random = SampleRandom.keyed(0, 0, index)
    return Batch([images], index, torch.full_like(index, -1), random, PROGRESS, phase)


def build(plugins: Plugins, **options: Any) -> BigBiGAN:
    torch.manual_seed(0)
    encoder = plugins.registry.get(Kind.ENCODER, "tiny").factory()
    encoder.feature_dim = 8
    return BigBiGAN(encoder, FACTS, **{**SMALL, **options})


@pytest.fixture
def task(plugins: Plugins) -> BigBiGAN:
    return build(plugins)


def reached(task: BigBiGAN) -> set[str]:
    """The parts of the task with a gradient."""
    return {name.split(".")[0] for name, p in task.named_parameters() if p.grad is not None and p.grad.any()}


def step(task: BigBiGAN, optimizer: torch.optim.Optimizer, images: Tensor, phase: str) -> float:
    task.zero_grad()
    loss = task(batch_of(images, phase)).loss
    loss.backward()
    optimizer.step()
    task.after_step({}, PROGRESS)
    return float(loss.detach())


@settings(deadline=None, max_examples=50)
@given(pairs=st.integers(1, 9), seed=st.integers(0, 1000), scale=st.sampled_from([0.1, 1.0, 10.0]))
def test_the_losses_are_those_of_section_2(pairs: int, seed: int, scale: float) -> None:
    real, fake = scale * draw(pairs, 3, seed=seed), scale * draw(pairs, 3, seed=seed + 1)
    expected = naive_losses(real, fake)
    found = discriminator_loss(real, fake).item(), encoder_generator_loss(real, fake).item()
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_an_undecided_discriminator_loses_one_a_score() -> None:
    assert discriminator_loss(torch.zeros(4, 3), torch.zeros(4, 3)).item() == 6
    assert encoder_generator_loss(torch.zeros(4, 3), torch.zeros(4, 3)).item() == 0


def test_a_sure_and_right_discriminator_loses_nothing_and_learns_nothing() -> None:
    real, fake = torch.full((4, 3), 1.5, requires_grad=True), torch.full((4, 3), -1.5)
    loss = discriminator_loss(real, fake)
    loss.backward()
    assert loss.item() == 0
    assert real.grad is not None
    assert not real.grad.any()


def test_encoder_and_generator_learn_however_sure_the_discriminator_is() -> None:
    real, fake = torch.full((4, 3), 9.0, requires_grad=True), torch.full((4, 3), -9.0, requires_grad=True)
    encoder_generator_loss(real, fake).backward()
    torch.testing.assert_close(real.grad, torch.full((4, 3), 0.25))
    torch.testing.assert_close(fake.grad, torch.full((4, 3), -0.25))


def test_a_latent_is_drawn_around_its_mean_with_its_own_spread() -> None:
    parameters = torch.tensor([[1.0, -2.0, 0.0, 3.0]])
    latents = sample_latents(parameters, torch.tensor([[2.0, -1.0]]))
    expected = [[1 + 2 * math.log(2), -2 - math.log(1 + math.exp(3))]]
    torch.testing.assert_close(latents, torch.tensor(expected))


def test_scores_are_of_the_picture_of_the_latent_and_of_both() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(3, 3, 8, width=4, hidden_dim=8)
    images, latents = pictures(2), draw(2, 3)
    scores = discriminator(images, latents)
    other_image, other_latent = discriminator(1 - images, latents), discriminator(images, -latents)
    assert (other_image != scores).tolist() == [[True, False, True]] * 2
    assert (other_latent != scores).tolist() == [[False, True, True]] * 2


def test_scores_are_linear_in_the_features_without_a_constant() -> None:
    discriminator = Discriminator(3, 3, 8, width=4, hidden_dim=8)
    for part in (discriminator.image_features, discriminator.latent_features, discriminator.pair_features):
        part.register_forward_hook(lambda _, __, output: torch.zeros_like(output))
    assert not discriminator(pictures(2), draw(2, 3)).any()


@pytest.mark.parametrize("phase", PHASES)
def test_the_loss_of_a_phase_is_that_of_pairs_encoded_and_generated(task: BigBiGAN, phase: str) -> None:
    task.eval()  # the same statistics for this forward and the next
    images = pictures(4)
    random = batch_of(images, phase).random
    latents, noise = random("latent").normal(3), random("encoder").normal(3)
    with torch.no_grad():
        parameters = task.latent_head(task.encoder(images))
        encoded = parameters[:, :3] + nn.functional.softplus(parameters[:, 3:]) * noise
        real = task.discriminator(images, encoded)
        fake = task.discriminator(task.generator(latents), latents)
    expected = naive_losses(real, fake)[PHASES.index(phase)]
    assert task(batch_of(images, phase)).loss.item() == pytest.approx(expected, abs=1e-5)


def test_a_deterministic_encoder_gives_a_picture_one_latent(plugins: Plugins) -> None:
    task = build(plugins, stochastic=False).eval()
    seen: list[Tensor] = []
    task.discriminator.register_forward_hook(lambda _, inputs, __: seen.append(inputs[1]))
    images = pictures(4)
    for index in (torch.arange(4), torch.arange(4, 8)):  # other draws
        task(batch_of(images, "discriminator", index))
    torch.testing.assert_close(seen[0], task.latent_head(task.encoder(images)))
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[1], seen[3])


def test_each_phase_has_a_gradient_for_all_of_its_own_parts_and_no_others(task: BigBiGAN) -> None:
    task(batch_of(pictures(4), "discriminator")).loss.backward()
    assert reached(task) == {"discriminator"}
    discriminator = {f"discriminator.module.{name}" for name, _ in task.discriminator.module.named_parameters()}
    assert discriminator == {name for name, p in task.named_parameters() if p.grad is not None}
    task.zero_grad()
    task(batch_of(pictures(4), "generator")).loss.backward()
    assert discriminator == {name for name, p in task.named_parameters() if p.grad is None}
    assert reached(task) == {"encoder", "latent_head", "generator"}


def test_the_encoder_learns_from_its_latents_alone_and_the_generator_from_its_pictures(task: BigBiGAN) -> None:
    nn.init.zeros_(task.discriminator.module.image_score.weight)
    nn.init.zeros_(task.discriminator.module.pair_score.weight)
    task(batch_of(pictures(4), "generator")).loss.backward()
    assert reached(task) == {"encoder", "latent_head"}  # what is left is s_z, which sees no picture


def test_every_parameter_has_an_optimizer_in_one_phase(task: BigBiGAN) -> None:
    optimized = [p for phase in PHASES for group in task.parameter_groups(phase) for p in group["params"]]
    assert len(optimized) == len(set(optimized))
    assert set(optimized) == set(task.parameters())


def test_encoder_and_generator_have_rates_of_their_own(task: BigBiGAN) -> None:
    recipe = Recipe(optimizer="adam", learning_rate=0.01, scaling="none", warmup=0.0, schedule="constant")
    optimizer = build_optimizer(task.parameter_groups("generator"), recipe, batch_size=4)
    build_schedule(optimizer, recipe, total_steps=10).step_update(3)
    rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for part, rate in ((task.encoder, 0.025), (task.latent_head, 0.025), (task.generator, 0.0025)):
        assert [rates[p] for p in part.parameters()] == pytest.approx([rate] * len(list(part.parameters())))


def test_a_step_of_one_phase_leaves_the_other_phases_parts_alone(task: BigBiGAN) -> None:
    for phase, moving in (("discriminator", {"discriminator"}), ("generator", {"encoder", "latent_head", "generator"})):
        before = {name: p.detach().clone() for name, p in task.named_parameters()}
        step(task, torch.optim.Adam(task.parameters(), lr=0.01), pictures(4), phase)
        moved = {name.split(".")[0] for name, p in task.named_parameters() if not torch.equal(before[name], p)}
        assert moved == moving


def test_singular_vectors_move_after_a_step_and_not_before(task: BigBiGAN) -> None:
    before = {name: tensor.clone() for name, tensor in task.discriminator.state_dict().items()}
    task(batch_of(pictures(4), "discriminator")).loss.backward()
    assert all(torch.equal(before[name], tensor) for name, tensor in task.discriminator.state_dict().items())
    task.after_step({}, PROGRESS)
    moved = {name for name, tensor in task.discriminator.state_dict().items() if not torch.equal(before[name], tensor)}
    assert moved
    assert all(f"discriminator.{name}".startswith(task.moves) for name in moved)


def test_a_steep_discriminator_is_held_back(task: BigBiGAN) -> None:
    images = pictures(4)
    task.eval()
    scores = task.discriminator(images, draw(4, 3))
    with torch.no_grad():
        task.discriminator.module.latent_score.weight *= 1000
    torch.testing.assert_close(task.discriminator(images, draw(4, 3)), scores)


@pytest.mark.parametrize("phase", PHASES)
def test_the_order_of_the_pictures_does_not_matter(task: BigBiGAN, phase: str) -> None:
    task.eval()  # batch statistics are summed in another order
    images, order = pictures(5), torch.tensor([3, 1, 4, 0, 2])
    turned = task(batch_of(images[order], phase, order)).loss
    torch.testing.assert_close(turned, task(batch_of(images, phase)).loss)


@pytest.mark.parametrize("phase", PHASES)
def test_the_loss_of_a_batch_is_the_mean_of_its_parts(task: BigBiGAN, phase: str) -> None:
    task.eval()  # batch statistics are the one thing that parts do not share
    images, index = pictures(6), torch.arange(6)
    parts = [task(batch_of(images[part], phase, part)).loss for part in index.chunk(3)]
    torch.testing.assert_close(torch.stack(parts).mean(), task(batch_of(images, phase)).loss)


def test_health_counts_right_sides_and_measures_gaps(task: BigBiGAN) -> None:
    scores = iter([torch.tensor([[2.0, -1, 0], [-1, -1, -1], [3, 0, 1], [1, 1, 1]]), torch.full((4, 3), -0.5)])
    task.discriminator.forward = lambda *_, **__: next(scores).requires_grad_()  # type: ignore[method-assign]
    logs = task(batch_of(pictures(4), "discriminator")).logs
    found = {name: torch.as_tensor(value).item() for name, value in logs.items()}
    assert found == {"real_right": 75, "generated_right": 100, "gap_x": 1.75, "gap_z": 0.25, "gap_xz": 0.75}


def test_the_encoders_features_are_what_is_evaluated(task: BigBiGAN) -> None:
    assert task.representation() is task.encoder


def test_the_discriminators_steps_are_an_option(plugins: Plugins) -> None:
    assert build(plugins).phases == (Phase("discriminator", repeats=2), Phase("generator"))
    assert build(plugins, discriminator_steps=1).phases == (Phase("discriminator"), Phase("generator"))


@pytest.mark.parametrize("option", [*SMALL, "discriminator_steps", "encoder_rate", "generator_rate"])
def test_an_option_that_is_not_positive_is_refused(plugins: Plugins, option: str) -> None:
    with pytest.raises(ClvrBenchError, match=rf"^bigbigan: {option} must be positive, got 0\."):
        build(plugins, **{option: 0})


def test_a_size_that_doubling_does_not_reach_is_passed_over_and_refused(task: BigBiGAN) -> None:
    facts = DataFacts("image", train_size=8, image_size=30)
    encoder = EncoderFacts("tiny", 8, 100, 1, has_feature_maps=False, has_tokens=False)
    reason = "image_size must be 4, 5, 6 or 7 times a power of two and at least 8, got 30"
    assert BigBiGAN.skip_reason(encoder, facts) == reason
    assert BigBiGAN.skip_reason(encoder, FACTS) is None
    with pytest.raises(ClvrBenchError, match=f"bigbigan: {reason}"):
        BigBiGAN(task.encoder, facts, **SMALL)


@pytest.mark.parametrize("phase", PHASES)
def test_the_loss_of_a_phase_falls_within_a_few_steps(task: BigBiGAN, phase: str) -> None:
    parameters = [p for group in task.parameter_groups(phase) for p in group["params"]]
    optimizer = torch.optim.Adam(parameters, lr=0.01)
    losses = [step(task, optimizer, pictures(8), phase) for _ in range(20)]
    assert losses[-1] < losses[0] - 0.3


def test_it_learns_to_generate_the_brightness_of_the_pictures(task: BigBiGAN) -> None:
    images = 0.2 + 0.1 * pictures(16)
    optimizers = {phase: torch.optim.Adam(task.parameter_groups(phase), lr=0.02, betas=(0.0, 0.99)) for phase in PHASES}
    before = task.generator(draw(16, 3)).mean().item()
    for turn in range(40):
        step(task, optimizers[PHASES[turn % 2]], images, PHASES[turn % 2])
    after = task.generator(draw(16, 3)).mean().item()
    assert abs(after - 0.25) < 0.5 * abs(before - 0.25)
