"""What holds for every encoder."""

from __future__ import annotations

from copy import deepcopy
from functools import cached_property

import torch
from torch import Tensor

from clvr_bench.assembly import build_encoder
from clvr_bench.contracts.encoder import Encoder
from clvr_bench.contracts.values import DataFacts
from clvr_bench.convolutions import go_around_faults
from clvr_bench.devices import autocast
from clvr_bench.draws import key_of
from clvr_bench.errors import ClvrBenchError
from clvr_bench.testing.checks import NotApplicable, listed, require, rule
from clvr_bench.testing.stage import CPU, some_views
from clvr_bench.testing.subject import Subject
from clvr_bench.testing.task_trial import changed, state_of

SIDES = (32, 64, 224)  # pixels: the first that the encoder takes is the size that it is tried at
STEPS = 3  # a branch that starts at zero, as in most ResNets, hides what is behind it from the first step


class EncoderTrial:
    """An encoder and pictures for it.

    Args:
        subject: The registered encoder.
    """

    def __init__(self, subject: Subject) -> None:
        self.choice = subject.choice()

    def build(self, seed: int = 0, side: int | None = None) -> Encoder:
        """Build the encoder, its weights drawn from a seed."""
        torch.manual_seed(key_of(seed, "encoder"))
        encoder = build_encoder(self.choice, DataFacts("image", train_size=100, image_size=side or self.side))
        go_around_faults(encoder)
        return encoder

    @property
    def built(self) -> Encoder:
        """The encoder of seed 0 in eval mode, built once; no rule may change it."""
        return self._built.eval()

    @cached_property
    def _built(self) -> Encoder:
        return self.build()

    @cached_property
    def side(self) -> int:
        """The size of the pictures that it is tried with, in pixels."""
        for side in SIDES[:-1]:
            try:
                with torch.device("meta"):
                    self.build(side=side)
            except Exception:
                continue
            return side
        return SIDES[-1]

    def views(self, count: int) -> Tensor:
        """Draw pictures for it, float32 in [0, 1)."""
        return some_views(count, self.side, len(self.built.mean))


@rule("features are (B, D) and finite", "encode(images) must return one vector a picture, such as a mean over the map.")
def features_are_finite(trial: EncoderTrial) -> None:
    """Encode some pictures."""
    encoder, views = trial.built, trial.views(3)
    with torch.no_grad():
        features = encoder(views)
    require(features.shape == (3, encoder.feature_dim), f"Their shape is {tuple(features.shape)}.")
    require(features.isfinite().all(), "Some are not finite.")


@rule("features are finite in bf16", "Compute what overflows in float32.")
def features_are_finite_in_bf16(trial: EncoderTrial) -> None:
    """Encode under autocast."""
    with torch.no_grad(), autocast(CPU, "bf16"):
        require(trial.built(trial.views(3)).isfinite().all(), "Some are not finite.")


@rule("features do not depend on the batch they come in", "In eval mode, use no statistics of the batch.")
def features_belong_to_pictures(trial: EncoderTrial) -> None:
    """Encode a batch and a part of it, in eval mode."""
    encoder, views = trial.built, trial.views(4)
    with torch.no_grad():
        require(torch.allclose(encoder(views)[:2], encoder(views[:2]), rtol=1e-3, atol=1e-4), "They do.")


@rule("encoding in eval mode moves no state", "Only training may change parameters and buffers.")
def eval_mode_moves_no_state(trial: EncoderTrial) -> None:
    """Compare parameters and buffers before and after."""
    encoder = trial.built
    before = state_of(encoder)
    with torch.no_grad():
        encoder(trial.views(2))
    moved = changed(before, state_of(encoder))
    require(not moved, f"It moved {listed(moved)}.")


@rule("the gradient reaches every parameter", "Remove what takes no part in encode(images), such as a classifier.")
def gradient_reaches_every_parameter(trial: EncoderTrial) -> None:
    """Take some steps and collect what had a gradient."""
    encoder, views = deepcopy(trial.built).train(), trial.views(4)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    reached: set[str] = set()
    for _ in range(STEPS):
        optimizer.zero_grad()
        features = encoder(views)
        (features * torch.linspace(-1, 1, features.numel()).view_as(features)).sum().backward()
        reached |= {name for name, p in encoder.named_parameters() if p.grad is not None and p.grad.any()}
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
    missed = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad} - reached
    require(not missed, f"None reached {listed(missed)}.")


@rule("the same seed gives the same weights, another seed others", "Initialize with torch's own generator only.")
def weights_come_from_the_seed(trial: EncoderTrial) -> None:
    """Build three times."""
    one, same, other = (state_of(encoder) for encoder in (trial.built, trial.build(0), trial.build(1)))
    different = changed(one, same)
    require(not different, f"Built twice with one seed, {listed(different)} differ.")
    require(changed(one, other), "Another seed changes nothing.")


@rule("a sibling has the same shapes and fresh weights", "Build everything from the factory's options.")
def siblings_are_fresh(trial: EncoderTrial) -> None:
    """Build a sibling."""
    encoder = trial.built
    sibling = encoder.sibling()
    shapes = [{name: tensor.shape for name, tensor in state_of(one).items()} for one in (encoder, sibling)]
    require(shapes[0] == shapes[1], "The shapes differ.")
    require(changed(state_of(encoder), state_of(sibling)), "It has the same weights.")
    shared = {id(p) for p in encoder.parameters()} & {id(p) for p in sibling.parameters()}
    require(not shared, "It shares parameters with its elder.")


@rule(
    "it takes other numbers of channels", "Give the factory an option in_channels: int = 3; some pretext tasks need it."
)
def takes_other_channels(trial: EncoderTrial) -> None:
    """Build it for one channel, as tasks on a part of the colors do."""
    if "in_channels" not in trial.choice.options:
        raise NotApplicable("It has no option in_channels, so tasks that need it skip this encoder.")
    encoder = trial.built.sibling(in_channels=1).eval()
    with torch.no_grad():
        encoder(some_views(2, trial.side, channels=1))


@rule("feature maps go from fine to coarse", "encode_maps(images) must return (B, c, h, w), the finest first.")
def maps_go_from_fine_to_coarse(trial: EncoderTrial) -> None:
    """Look at the maps' shapes, where it has any."""
    encoder, views = trial.built, trial.views(2)
    try:
        with torch.no_grad():
            maps = encoder.feature_maps(views)
    except ClvrBenchError as error:
        raise NotApplicable(str(error)) from None
    require(all(one.ndim == 4 and len(one) == 2 for one in maps), f"Shapes: {[tuple(one.shape) for one in maps]}.")
    heights = [one.shape[2] for one in maps]
    require(heights == sorted(heights, reverse=True), f"Heights: {heights}.")


@rule(
    "tokens can be encoded for some patches only", "encode_tokens(images, keep) must encode only the patches in keep."
)
def tokens_can_be_kept(trial: EncoderTrial) -> None:
    """Ask for the tokens of some patches, where it has any."""
    encoder, views = trial.built, trial.views(2)
    try:
        with torch.no_grad():
            tokens = encoder.tokens(views)
            kept = encoder.tokens(views, keep=torch.tensor([[0, 2], [1, 3]]))
            everything = encoder.tokens(
                views, keep=torch.arange(tokens.shape[1] - _prefix(encoder, views)).repeat(2, 1)
            )
    except ClvrBenchError as error:
        raise NotApplicable(str(error)) from None
    require(kept.shape[1] == 2 + _prefix(encoder, views), f"Two of the patches gave {tuple(kept.shape)}.")
    require(torch.allclose(tokens, everything, atol=1e-4), "Keeping all patches differs from keep=None.")


def _prefix(encoder: Encoder, views: Tensor) -> int:
    """Return how many tokens stand before the patches' own."""
    with torch.no_grad():
        return encoder.tokens(views, keep=torch.zeros(len(views), 1, dtype=torch.long)).shape[1] - 1


RULES = (
    features_are_finite,
    features_are_finite_in_bf16,
    features_belong_to_pictures,
    eval_mode_moves_no_state,
    gradient_reaches_every_parameter,
    weights_come_from_the_seed,
    siblings_are_fresh,
    takes_other_channels,
    maps_go_from_fine_to_coarse,
    tokens_can_be_kept,
)
