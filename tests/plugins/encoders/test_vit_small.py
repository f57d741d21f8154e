from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from clvr_bench import ClvrBenchError, DataFacts, Encoder
from clvr_bench.assembly import build_encoder, encoder_facts
from clvr_bench.combinations import Choice
from clvr_bench.options import resolve_options
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind

FACTS = DataFacts("image", train_size=10, image_size=32)
MICRO = "vit_micro_patch4_32"


@pytest.fixture(scope="session")
def choose(plugins: Plugins) -> Callable[..., Choice]:
    def choice(name: str, **options: object) -> Choice:
        entry = plugins.registry.get(Kind.ENCODER, name)
        return Choice(entry, resolve_options(entry.options, options, name))

    return choice


@pytest.fixture(scope="module")
def build(choose: Callable[..., Choice]) -> Callable[..., Encoder]:
    def built(**options: object) -> Encoder:
        torch.manual_seed(0)
        return build_encoder(choose(MICRO, **options), FACTS).eval()

    return built


@pytest.fixture(autouse=True)
def _no_gradient() -> object:
    with torch.no_grad():
        yield


def pictures(count: int = 2, size: int = 32, channels: int = 3) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "millions", "feature_dim"),
    [(MICRO, 0.68, 96), ("vit_tiny_patch4_32", 5.35, 192), ("vit_small_patch4_32", 21.31, 384)],
)
def test_parameters_and_feature_dim(
    choose: Callable[..., Choice], name: str, millions: float, feature_dim: int
) -> None:
    found = encoder_facts(choose(name), FACTS)
    assert round(found.parameters / 1e6, 2) == millions
    assert (found.feature_dim, found.minimum_size) == (feature_dim, 4)
    assert found.has_tokens
    assert found.has_feature_maps


def test_32_pixels_are_64_tokens(build: Callable[..., Encoder]) -> None:
    assert build().tokens(pictures()).shape == (2, 64, 96)


def test_a_feature_is_the_mean_of_the_normalized_tokens(build: Callable[..., Encoder]) -> None:
    encoder = build()
    tokens = encoder.tokens(pictures())
    torch.testing.assert_close(encoder(pictures()), tokens.mean(dim=1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(tokens.mean(dim=2), torch.zeros(2, 64), rtol=0, atol=1e-5)
    torch.testing.assert_close(tokens.var(dim=2, unbiased=False), torch.ones(2, 64), rtol=1e-3, atol=0)


def test_a_feature_can_be_the_class_token(build: Callable[..., Encoder]) -> None:
    encoder = build(pool="token")
    tokens = encoder.tokens(pictures())
    assert tokens.shape == (2, 1 + 64, 96)
    torch.testing.assert_close(encoder(pictures()), tokens[:, 0], rtol=1e-4, atol=1e-5)


def test_positions_are_sines_and_cosines_of_row_and_column(build: Callable[..., Encoder]) -> None:
    positions = build().network.pos_embed[0]  # (64, 96)
    row, column = 5, 2
    expected = torch.tensor(
        [
            wave(place / 10_000 ** (band / 24))  # 24 frequencies, from 1 down to almost 1 / 10,000
            for wave in (math.sin, math.cos)
            for place in (row, column)
            for band in range(24)
        ]
    )
    torch.testing.assert_close(positions[8 * row + column], expected, rtol=1e-4, atol=1e-5)


def test_positions_are_constants(build: Callable[..., Encoder]) -> None:
    encoder = build()
    assert "network.pos_embed" not in dict(encoder.named_parameters())
    assert "network.pos_embed" not in encoder.state_dict()


def test_without_positions_the_order_of_patches_would_not_matter(build: Callable[..., Encoder]) -> None:
    encoder = build()
    shifted = pictures().roll(8, dims=2)  # two patches down
    assert not torch.allclose(encoder(shifted), encoder(pictures()), atol=1e-3)
    encoder.network.pos_embed.zero_()
    torch.testing.assert_close(encoder(shifted), encoder(pictures()), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("size", [4, 8, 48])
def test_it_takes_other_sizes(build: Callable[..., Encoder], size: int) -> None:
    encoder = build()
    assert encoder(pictures(size=size)).shape == (2, 96)
    assert encoder.tokens(pictures(size=size)).shape == (2, (size // 4) ** 2, 96)


@pytest.mark.parametrize("pool", ["mean", "token"])
def test_only_kept_patches_are_encoded(build: Callable[..., Encoder], pool: str) -> None:
    encoder = build(pool=pool)
    keep = torch.tensor([[0, 63, 9], [8, 1, 2]])
    changed = pictures()
    changed[:, :, 16:20] = 0  # patches 32 to 39
    tokens = encoder.tokens(pictures(), keep=keep)
    assert tokens.shape == (2, 3 + (pool == "token"), 96)
    torch.testing.assert_close(encoder.tokens(changed, keep=keep), tokens)


def test_weights_of_the_blocks_are_drawn_xavier_uniformly(build: Callable[..., Encoder]) -> None:
    block = build().network.blocks[3]
    for layer, fans in ((block.attn.qkv, 4 * 96), (block.mlp.fc1, 5 * 96)):
        bound = (6 / fans) ** 0.5
        assert layer.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


def test_gray_pictures(build: Callable[..., Encoder]) -> None:
    encoder = build(in_channels=1)
    assert len(encoder.mean) == len(encoder.std) == 1
    assert encoder(pictures(channels=1)).shape == (2, 96)


def test_layer_normalization_is_what_it_has(build: Callable[..., Encoder]) -> None:
    own, layer = build().state_dict(), build(norm="layer").state_dict()
    assert own.keys() == layer.keys()
    assert all(torch.equal(own[name], layer[name]) for name in own)


@pytest.mark.parametrize("option", [{"norm": "batch"}, {"pool": "max"}, {"depth": 3}])
def test_other_options_are_refused(choose: Callable[..., Choice], option: dict[str, object]) -> None:
    with pytest.raises(ClvrBenchError, match=next(iter(option))):
        choose(MICRO, **option)
