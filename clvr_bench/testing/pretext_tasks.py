"""What holds for every pretext task."""

from __future__ import annotations

import io
from typing import Any

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from clvr_bench.ops.health import rankme
from clvr_bench.pretraining import Pretraining
from clvr_bench.previews import preview_problem, transforms_views
from clvr_bench.testing.checks import NotApplicable, listed, require, rule
from clvr_bench.testing.stage import RESNET, VIT, pictures, some_views
from clvr_bench.testing.task_trial import BATCH, TaskTrial, changed, first_batch, state_of, statistics_of

STEPS_ON_ONE_BATCH = 30
ADAM_RATE = 1e-3
EARLY, LATE = 2, 12  # epochs between which the features' rank must not fall; normalization has settled by the first
RATE_FOR_RANK = 2e-3
LEAST_RANK = 1 / 3  # of the early one; measured here: 0.7 to 1.5 for tasks that learn, 0.26 in a collapse
TOLERANCE = 1e-4  # relative, of a float32 loss summed in another order


def _builds_on(trial: TaskTrial, encoder: str) -> None:
    if not trial.task.uses_encoder:
        raise NotApplicable("It uses no encoder.")
    reason = trial.skip_reason(encoder)
    if reason:
        raise NotApplicable(f"It says why not: {reason}.")
    run = trial.start(encoder=encoder)
    run.time_steps(1) if trial.task.trains else run.prepare_untrained()


@rule("builds on a ResNet, or says why not", "Let skip_reason(encoder, data) say what the task needs.")
def builds_on_a_resnet(trial: TaskTrial) -> None:
    """Build the task on a ResNet and take a step."""
    _builds_on(trial, RESNET)


@rule("builds on a vision transformer, or says why not", "Let skip_reason(encoder, data) say what the task needs.")
def builds_on_a_vision_transformer(trial: TaskTrial) -> None:
    """Build the task on a vision transformer and take a step."""
    _builds_on(trial, VIT)


@rule("it trains with a finite loss", "Look for log(0), division by a norm of zero, or softmax of infinite logits.")
def trains_with_a_finite_loss(trial: TaskTrial) -> None:
    """Train for two epochs."""
    for entry in trial.train().run.state.history:
        require(torch.tensor(entry["loss"]).isfinite(), f"The loss of epoch {entry['epoch']} is {entry['loss']}.")


@rule("the loss is finite in bf16", "Compute the loss in float32: call .float() on what the networks give.")
def loss_is_finite_in_bf16(trial: TaskTrial) -> None:
    """Train for an epoch under autocast."""
    _ = trial.trained
    loss = _loss_of_an_epoch(trial.start(precision="bf16", epochs=1))
    require(torch.tensor(loss).isfinite(), f"The loss is {loss}.")


@rule(
    "the gradient reaches every part that trains",
    "A part that takes no part in the loss: remove it, or freeze it with requires_grad_(False). Was a tensor detached?",
)
def gradient_reaches_every_trainable_part(trial: TaskTrial) -> None:
    """Collect gradients over two epochs."""
    task, reached = trial.trained.run.task, trial.trained.reached
    missed = {name for name, parameter in task.named_parameters() if parameter.requires_grad} - reached
    require(not missed, f"No gradient ever reached {listed(missed)}.")


@rule("the gradient reaches no frozen part", "Compute what the frozen part gives under torch.no_grad().")
def gradient_reaches_no_frozen_part(trial: TaskTrial) -> None:
    """Collect gradients over two epochs."""
    reached = trial.trained.frozen_reached
    require(not reached, f"A gradient reached {listed(reached)}, which no optimizer moves.")


@rule(
    "every part that trains has an optimizer",
    "Let parameter_groups(phase) name it in some phase, or freeze it with requires_grad_(False).",
)
def every_trainable_part_is_optimized(trial: TaskTrial) -> None:
    """Compare the trainable parameters with the optimizers' groups."""
    run = trial.trained.run
    missed = {name for name, p in run.task.named_parameters() if p.requires_grad and p not in run.optimized}
    require(not missed, f"No optimizer moves {listed(missed)}.")
    frozen = {name for name, p in run.task.named_parameters() if not p.requires_grad and p in run.optimized}
    require(not frozen, f"An optimizer has {listed(frozen)}, which is frozen.")


@rule(
    "forward moves no state but normalization's", "Hand what is to be remembered to after_step: StepOutput(kept=...)."
)
def forward_moves_no_state(trial: TaskTrial) -> None:
    """Compare all parameters and buffers before and after every forward."""
    moved = trial.trained.moved["forward"] - statistics_of(trial.trained.run.task)
    require(not moved, f"forward moved {listed(moved)}.")


@rule(
    "queues, banks and targets move as declared",
    'Name what after_step and before_epoch move: moves = ("queue", "target"); and move what is named.',
)
def state_moves_as_declared(trial: TaskTrial) -> None:
    """Compare what moved over two epochs with the task's ``moves``."""
    task, moved = trial.trained.run.task, trial.trained.moved
    declared = task.moves
    resettable = {name for name, parameter in task.named_parameters() if parameter.requires_grad}
    surprises = _undeclared(moved["after_step"], declared)
    surprises |= _undeclared(moved["before_epoch"], declared) - resettable - statistics_of(task)
    require(not surprises, f"Not declared, but moved: {listed(surprises)}.")
    seen = moved["after_step"] | moved["before_epoch"]
    still = {name for name in declared if not any(_within(moving, name) for moving in seen)}
    require(not still, f"Declared, but never moved: {listed(still)}.")


def _within(name: str, declared: str) -> bool:
    return name == declared or name.startswith(f"{declared}.")


def _undeclared(names: set[str], declared: tuple[str, ...]) -> set[str]:
    return {name for name in names if not any(_within(name, prefix) for prefix in declared)}


@rule("the same seed gives the same loss", "Draw only from batch.random(purpose), and never from time or a global.")
def same_seed_gives_the_same_loss(trial: TaskTrial) -> None:
    """Repeat the first epoch."""
    history = trial.trained.run.state.history
    again = _loss_of_an_epoch(trial.start())
    require(again == history[0]["loss"], f"Twice the first epoch: {history[0]['loss']} and {again}.")


@rule(
    "draws do not depend on the batch they come in",
    'Draw from batch.random(purpose), one row a sample; a permutation is batch.random("shuffle").uniform().argsort().',
)
def draws_belong_to_samples(trial: TaskTrial) -> None:
    """Watch torch's own generator, and compare the loss of a batch with that of its samples in another order."""
    _ = trial.trained
    run = trial.start()
    run.prepare_epoch()
    if not any(isinstance(part, DropPath | nn.Dropout) for part in run.task.modules()):  # they know no other generator
        for phase in run.task.phases:
            _require_own_draws(run, phase.name)
    run.task.eval()  # without batch statistics of parts of the batch, its order must not matter
    backwards = torch.arange(BATCH).flip(0)
    for phase in run.task.phases:
        loss, turned = (_loss(run, phase.name, order) for order in (None, backwards))
        require(_close(loss, turned), f"The loss of a batch is {loss:.6f}, and {turned:.6f} in another order.")


def _require_own_draws(run: Pretraining, phase: str) -> None:
    batch = first_batch(run, phase)
    before = torch.get_rng_state()
    run.forward(batch)
    require(torch.equal(before, torch.get_rng_state()), "forward drew from torch's own generator.")


def _loss(run: Pretraining, phase: str, order: Tensor | None = None) -> float:
    return run.forward(first_batch(run, phase, order)).loss.item()


def _close(one: float, other: float) -> bool:
    return abs(one - other) <= TOLERANCE * max(1.0, abs(one))


@rule(
    "interrupted and resumed equals uninterrupted",
    "Keep everything that training moves in parameters and buffers of fixed shape, not in plain attributes.",
)
def resumed_equals_uninterrupted(trial: TaskTrial) -> None:
    """Stop within an epoch and between two, go on from the saved state in a task built anew each time, and compare."""
    whole, resumed = trial.trained.run, trial.start()
    resumed.run_epoch(pause=lambda: True)  # a step; an epoch has several
    while not resumed.finished:
        saved = _through_disk(resumed.state_dict())
        resumed = trial.start()
        resumed.load_state_dict(saved)
        resumed.run_epoch()
    different = changed(state_of(whole.task), state_of(resumed.task))
    require(not different, f"After resuming, {listed(different)} differ.")
    losses = [run.state.history[-1]["loss"] for run in (whole, resumed)]
    require(losses[0] == losses[1], f"The second epoch's loss is {losses[0]}, and {losses[1]} after resuming.")


def _loss_of_an_epoch(run: Pretraining) -> float:
    run.run_epoch()
    return float(run.state.history[-1]["loss"])


def _through_disk(state: dict[str, Any]) -> Any:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@rule(
    "saved weights give the same features",
    "Keep what the representation needs in its parameters and buffers: they are what is saved.",
)
def saved_weights_give_the_same_features(trial: TaskTrial) -> None:
    """Load the representation's state into one that was built with another seed."""
    run, other = _prepared(trial), trial.start(seed=1).task
    representation, fresh = run.task.representation().eval(), other.representation()
    fresh.load_state_dict(_through_disk(representation.state_dict()))
    views = some_views(4)
    with torch.no_grad():
        require(torch.equal(representation(views), fresh.eval()(views)), "The features differ after loading.")


@rule(
    "features are (B, D), finite, and do not depend on the batch they come in",
    "representation() must map (B, C, H, W) in [0, 1] to (B, D); in eval mode without statistics of the batch.",
)
def features_belong_to_pictures(trial: TaskTrial) -> None:
    """Take features of a batch and of a part of it."""
    representation = _prepared(trial).task.representation().eval()
    views = some_views(6)
    with torch.no_grad():
        features, part = representation(views), representation(views[:2])
    require(features.ndim == 2 and len(features) == 6, f"The features' shape is {tuple(features.shape)}.")
    require(features.isfinite().all(), "Some features are not finite.")
    require(torch.allclose(features[:2], part, rtol=1e-3, atol=1e-4), "They depend on the batch they come in.")


def _prepared(trial: TaskTrial) -> Pretraining:
    """Return a pretraining that is as done as it gets: trained, or prepared where the task does not train."""
    if trial.task.trains:
        return trial.trained.run
    run = trial.start()
    run.prepare_untrained()
    return run


@rule("separable is true where it is claimed", "Claim separable only where the loss is a mean over the samples.")
def separable_is_true(trial: TaskTrial) -> None:
    """Compare the gradient of a batch with the mean of its halves' gradients, without statistics of the batch."""
    _ = trial.trained
    if not trial.task.separable:
        raise NotApplicable("It claims no separable loss.")
    run = trial.start()
    run.prepare_epoch()
    run.task.eval()
    whole = torch.arange(BATCH)
    for phase in run.task.phases:
        at_once = _gradient(run, phase.name, [whole])
        in_parts = _gradient(run, phase.name, list(whole.chunk(2)))
        error = ((at_once - in_parts).norm() / at_once.norm().clamp(min=1e-12)).item()
        require(error < 1e-3, f"The gradient of a batch and of its halves differ by {error:.1%}.")


def _gradient(run: Pretraining, phase: str, parts: list[Tensor]) -> Tensor:
    run.task.zero_grad()
    progress = first_batch(run, phase).progress
    for part in parts:
        output = run.forward(run.batch(part, part, part, progress, phase))
        (output.loss * (len(part) / BATCH)).backward()
    return torch.cat([p.grad.flatten() for p in run.task.parameters() if p.grad is not None])


@rule(
    "the loss falls on a batch that is repeated",
    "Is the sign right, is a tensor detached that should not be, does the head see what it needs?",
)
def loss_falls_on_a_repeated_batch(trial: TaskTrial) -> None:
    """Let Adam fit one batch, each phase for itself, while nothing else moves."""
    for phase in trial.trained.run.task.phases:
        run = trial.start()
        run.prepare_epoch()
        run.task.train()
        losses = _fit_one_batch(run, phase.name)
        first, last = losses[0], sum(losses[-3:]) / 3
        require(
            last < first, f"In {STEPS_ON_ONE_BATCH} steps of '{phase.name}' it went from {first:.4f} to {last:.4f}."
        )


def _fit_one_batch(run: Pretraining, phase: str) -> list[float]:
    parameters = [p for group in run.task.parameter_groups(phase) for p in group["params"]]
    optimizer = torch.optim.Adam(parameters, lr=ADAM_RATE)
    batch, losses = first_batch(run, phase), []
    for _ in range(STEPS_ON_ONE_BATCH):
        loss = run.forward(batch).loss
        run.task.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@rule(
    "the representation keeps its rank",
    "All pictures are becoming one feature: what keeps them apart? Negatives, a predictor, a variance term?",
)
def representation_keeps_its_rank(trial: TaskTrial) -> None:
    """Train for some epochs with Adam and compare the features' effective rank early and late."""
    _ = trial.trained
    recipe = {"optimizer": "adamw", "learning_rate": RATE_FOR_RANK, "scaling": "none", "weight_decay": 0.0}
    run = trial.start(epochs=LATE, recipe=recipe | {"warmup": 0.0, "schedule": "constant"})
    early, late = (_rank_after(run, epochs) for epochs in (EARLY, LATE))
    found = f"The features' effective rank fell from {early:.1f} to {late:.1f} in {LATE - EARLY} epochs."
    require(late >= LEAST_RANK * early, found)


def _rank_after(run: Pretraining, epochs: int) -> float:
    """Train on until so many epochs are done, and return the features' effective rank."""
    while run.state.epoch < epochs:
        run.run_epoch()
    return rankme(run.features(run.task.representation(), pictures().train)).item()


@rule(
    "preview shows pictures of its samples, and moves nothing",
    "Return pictures (B, C, H, W) by label, float in [0, 1], of one channel or three; draw from batch.random(purpose).",
)
def preview_shows_pictures(trial: TaskTrial) -> None:
    """Preview a batch and look at the pictures, at torch's own generator, and at the task's state."""
    if not transforms_views(trial.task):
        raise NotApplicable("Its encoder sees the views as they are.")
    run = trial.start()
    batch, generator, state = first_batch(run, run.task.phases[0].name), torch.get_rng_state(), state_of(run.task)
    with torch.no_grad():
        shown = run.task.preview(batch)
    problem = preview_problem(shown, BATCH)
    require(problem is None, f"Of {BATCH} samples, {problem}.")
    require(torch.equal(generator, torch.get_rng_state()), "It drew from torch's own generator.")
    moved = changed(state, state_of(run.task))
    require(not moved, f"It moved {listed(moved)}.")


RULES = (
    builds_on_a_resnet,
    builds_on_a_vision_transformer,
    trains_with_a_finite_loss,
    loss_is_finite_in_bf16,
    gradient_reaches_every_trainable_part,
    gradient_reaches_no_frozen_part,
    every_trainable_part_is_optimized,
    forward_moves_no_state,
    state_moves_as_declared,
    same_seed_gives_the_same_loss,
    draws_belong_to_samples,
    resumed_equals_uninterrupted,
    saved_weights_give_the_same_features,
    features_belong_to_pictures,
    separable_is_true,
    loss_falls_on_a_repeated_batch,
    representation_keeps_its_rank,
    preview_shows_pictures,
)
