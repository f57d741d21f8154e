"""BigBiGAN: an encoder and a generator fool a discriminator that sees pictures and latents, alone and in pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clvr_bench import (
    Batch,
    ClvrBenchError,
    DataFacts,
    Encoder,
    EncoderFacts,
    Phase,
    PretextTask,
    Progress,
    Recipe,
    Register,
    SampleRandom,
    StepOutput,
    decay_groups,
    hookimpl,
)
from clvr_bench.toolbox import ResidualMLP, SpectralNorm, can_double_to, picture_features, picture_generator


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register BigBiGAN."""
    register(
        "bigbigan",
        BigBiGAN,
        summary="A GAN's encoder and generator, trained against a discriminator of pictures, latents and pairs.",
        source="Donahue and Simonyan 2019, https://arxiv.org/abs/1907.02544",
        version=1,
    )


class BigBiGAN(PretextTask):
    """BigBiGAN (Donahue and Simonyan 2019, section 2), with a stochastic encoder and a normal prior.

    A picture x comes with a latent E(x), a latent z with a picture G(z). The discriminator scores pictures, latents and
    pairs; several of its steps alternate with one of encoder and generator, each step on a batch of its own. Only the
    encoder's features are evaluated, as in the paper; the latents are not.
    Differs from the paper: encoder and discriminator see pictures of one size; generator and F are plain strided
    convolutions, made for small pictures, not BigGAN's residual networks; spectral normalization is in the
    discriminator alone; the head on the encoder begins with BatchNorm, without which all latents swing as one, and is
    as wide as H and J; no average of the generator's weights is kept, which serves sampling alone.

    Args:
        encoder: Maps pictures to features (B, D).
        data: Its ``image_size`` must be 4 to 7 pixels times a power of two; its ``channels`` are generated.
        latent_dim: The length of a latent (BigGAN: 120 at 128 pixels).
        width: Channels of generator and F at full resolution; they double with each halving (64 in Miyato et al. 2018).
        hidden_dim: Width of the perceptrons H, J and the encoder's head.
        stochastic: Whether a latent is drawn from E(z | x), or is a function of the picture ("deterministic E" of
            section 3.1).
        discriminator_steps: Steps of the discriminator before each one of encoder and generator (BigGAN: 2).
        encoder_rate: The encoder's learning rate, as a multiple of the discriminator's: ten times the generator's
            (section 3.1).
        generator_rate: The generator's, likewise (BigGAN: 5e-5 to the discriminator's 2e-4).
    """

    views = 1
    separable = True
    phases = (Phase("discriminator", repeats=2), Phase("generator"))
    default_augmentation = "crop_flip"
    recipe = Recipe(  # BigGAN's: the rate is the discriminator's, and stays
        optimizer="adam", learning_rate=2e-4, scaling="none", betas=(0.0, 0.999), weight_decay=0.0, warmup=0.0,
        schedule="constant",
    )  # fmt: skip
    moves = ("discriminator.vectors",)
    check_options: ClassVar[Mapping[str, Any]] = {"latent_dim": 8, "width": 8, "hidden_dim": 32}

    def __init__(
        self,
        encoder: Encoder,
        data: DataFacts,
        *,
        latent_dim: int = 120,
        width: int = 64,
        hidden_dim: int = 2048,
        stochastic: bool = True,
        discriminator_steps: int = 2,
        encoder_rate: float = 2.5,
        generator_rate: float = 0.25,
    ) -> None:
        super().__init__()
        _require_positive(latent_dim=latent_dim, width=width, hidden_dim=hidden_dim)
        _require_positive(discriminator_steps=discriminator_steps)
        _require_positive(encoder_rate=encoder_rate, generator_rate=generator_rate)
        if problem := _size_problem(data.image_size):
            raise ClvrBenchError(f"bigbigan: {problem}. Typical sizes are 32, 64 and 96.")
        self.phases = (Phase("discriminator", repeats=discriminator_steps), Phase("generator"))
        self.latent_dim, self.stochastic = latent_dim, stochastic
        self.encoder_rate, self.generator_rate = encoder_rate, generator_rate
        self.encoder = encoder
        self.latent_head = nn.Sequential(
            nn.BatchNorm1d(encoder.feature_dim),
            ResidualMLP(encoder.feature_dim, hidden_dim, blocks=2),
            nn.Linear(hidden_dim, 2 * latent_dim if stochastic else latent_dim),
        )
        self.generator = picture_generator(latent_dim, data.channels, data.image_size, width)
        self.discriminator = SpectralNorm(
            Discriminator(latent_dim, data.channels, data.image_size, width=width, hidden_dim=hidden_dim)
        )

    @classmethod
    def skip_reason(cls, encoder: EncoderFacts, data: DataFacts) -> str | None:
        """Pass over pictures whose size the generator cannot reach by doubling."""
        return _size_problem(data.image_size)

    def forward(self, batch: Batch) -> StepOutput:
        """Compute the discriminator's loss or that of encoder and generator, as the phase says."""
        images, latents = batch.views[0], batch.random("latent").normal(self.latent_dim)
        fooling = batch.phase == "generator"
        with torch.set_grad_enabled(fooling):
            encoded = self._encode(images, batch.random)  # (B, L)
            generated = self.generator(latents)  # (B, C, H, W)
        real = self.discriminator(images, encoded, frozen=fooling).float()  # (B, 3)
        fake = self.discriminator(generated, latents, frozen=fooling).float()  # (B, 3)
        if fooling:
            return StepOutput(encoder_generator_loss(real, fake))
        return StepOutput(discriminator_loss(real, fake), logs=_health(real, fake))

    def _encode(self, images: Tensor, random: SampleRandom) -> Tensor:
        encoding: Tensor = self.latent_head(self.encoder(images)).float()  # (B, 2L), or (B, L)
        return sample_latents(encoding, random("encoder").normal(self.latent_dim)) if self.stochastic else encoding

    def after_step(self, kept: Mapping[str, Tensor], progress: Progress) -> None:
        """Follow the discriminator's weights with their singular vectors."""
        self.discriminator.iterate()

    def parameter_groups(self, phase: str) -> list[dict[str, Any]]:
        """Return the parameters of the discriminator, or those of encoder and generator at their own rates."""
        if phase == "discriminator":
            return decay_groups(self.discriminator)
        encoder = _rated(decay_groups(self.encoder, self.latent_head), self.encoder_rate)
        return [*encoder, *_rated(decay_groups(self.generator), self.generator_rate)]


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Compute L_D of section 2: the hinge h(t) = max(0, 1 - t) of y s, summed over s_x, s_z and s_xz.

    Args:
        real: (B, 3) scores of pictures with their encodings, y = +1.
        fake: (B, 3) scores of generated pictures with their latents, y = -1.

    Returns:
        (), the mean over the batch.
    """
    return (F.relu(1 - real) + F.relu(1 + fake)).sum(dim=1).mean()


def encoder_generator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Compute L_EG of section 2: y s, summed over s_x, s_z and s_xz; arguments as ``discriminator_loss`` has them."""
    return (real - fake).sum(dim=1).mean()


def sample_latents(parameters: Tensor, noise: Tensor) -> Tensor:
    """Draw from E(z | x), a normal distribution with independent dimensions.

    Args:
        parameters: (B, 2L), the means, then what softplus maps to standard deviations.
        noise: (B, L), standard normal.

    Returns:
        (B, L).
    """
    mean, spread = parameters.chunk(2, dim=1)
    return mean + F.softplus(spread) * noise


class Discriminator(nn.Module):
    """The scores s_x of a picture, s_z of a latent and s_xz of the pair, linear in F(x), H(z) and J(F(x), H(z))."""

    def __init__(self, latent_dim: int, channels: int, image_size: int, *, width: int, hidden_dim: int) -> None:
        super().__init__()
        self.image_features, image_dim = picture_features(channels, image_size, width)  # F
        self.latent_features = ResidualMLP(latent_dim, hidden_dim, blocks=4)  # H
        self.pair_features = ResidualMLP(image_dim + hidden_dim, hidden_dim, blocks=4)  # J
        self.image_score = nn.Linear(image_dim, 1, bias=False)
        self.latent_score = nn.Linear(hidden_dim, 1, bias=False)
        self.pair_score = nn.Linear(hidden_dim, 1, bias=False)

    def forward(self, images: Tensor, latents: Tensor) -> Tensor:
        """Score pictures (B, C, H, W) in [0, 1] and latents (B, L): s_x, s_z and s_xz, (B, 3)."""
        image = self.image_features(images)  # (B, image_dim)
        latent = self.latent_features(latents)  # (B, hidden)
        pair = self.pair_features(torch.cat([image, latent], dim=1))  # (B, hidden)
        return torch.cat([self.image_score(image), self.latent_score(latent), self.pair_score(pair)], dim=1)


def _rated(groups: list[dict[str, Any]], rate: float) -> list[dict[str, Any]]:
    """Give parameter groups a multiple of the learning rate, as timm's schedules read it."""
    return [{**group, "lr_scale": rate} for group in groups]


def _require_positive(**options: float) -> None:
    for name, value in options.items():
        if value <= 0:
            raise ClvrBenchError(
                f"bigbigan: {name} must be positive, got {value}. See its default for a typical value."
            )


def _size_problem(image_size: int) -> str | None:
    if can_double_to(image_size):
        return None
    return f"image_size must be 4, 5, 6 or 7 times a power of two and at least 8, got {image_size}"


def _health(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """Say how often the summed scores are right, in percent, and how far apart each score holds real and generated."""
    right = {"real_right": real.sum(dim=1) > 0, "generated_right": fake.sum(dim=1) < 0}
    gaps = (real - fake).mean(dim=0)
    return {
        **{name: 100 * hits.float().mean() for name, hits in right.items()},
        **{f"gap_{name}": gap for name, gap in zip(("x", "z", "xz"), gaps, strict=True)},
    }
