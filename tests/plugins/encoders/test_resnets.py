from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from clvr_bench import ClvrBenchError, DataFacts, Encoder
from clvr_bench.assembly import build_encoder, encoder_facts
from clvr_bench.combinations import Choice
from clvr_bench.options import resolve_options
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind

FACTS = DataFacts("image", train_size=10, image_size=32)
SMALL = ["resnet18_small", "resnet18_small_w16", "resnet18_small_w32", "resnet50_small"]


@pytest.fixture(scope="session")
def choose(plugins: Plugins) -> Callable[..., Choice]:
    def choice(name: str, **options: object) -> Choice:
        entry = plugins.registry.get(Kind.ENCODER, name)
        return Choice(entry, resolve_options(entry.options, options, name))

    return choice


@pytest.fixture(scope="module")
def build(choose: Callable[..., Choice]) -> Callable[..., Encoder]:
    def built(name: str = "resnet18_small_w16", **options: object) -> Encoder:
        torch.manual_seed(0)
        return build_encoder(choose(name, **options), FACTS).eval()

    return built


@pytest.fixture(autouse=True)
def _no_gradient() -> object:
    with torch.no_grad():
        yield


def pictures(count: int = 2, size: int = 32, channels: int = 3) -> torch.Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "millions", "feature_dim"),
    [
        ("resnet18_small", 11.17, 512),
        ("resnet18_small_w16", 0.70, 128),
        ("resnet18_small_w32", 2.80, 256),
        ("resnet50_small", 23.50, 2048),
        ("resnet50x2", 93.91, 4096),
        ("resnet50x4", 375.38, 8192),
        ("resnet101_stage3", 27.54, 1024),
    ],
)
def test_parameters_and_feature_dim(
    choose: Callable[..., Choice], name: str, millions: float, feature_dim: int
) -> None:
    found = encoder_facts(choose(name), FACTS)
    assert round(found.parameters / 1e6, 2) == millions
    assert found.feature_dim == feature_dim


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_beyond_the_stem_it_is_timms(choose: Callable[..., Choice], name: str) -> None:
    with torch.device("meta"):
        small, timms = (build_encoder(choose(n), FACTS).state_dict() for n in (f"{name}_small", name))
    differing = [
        k for k in small.keys() | timms.keys() if k not in small or k not in timms or small[k].shape != timms[k].shape
    ]
    assert differing == ["network.conv1.weight"]


@pytest.mark.parametrize("name", SMALL)
def test_the_stem_is_one_3x3_convolution_without_pooling(choose: Callable[..., Choice], name: str) -> None:
    with torch.device("meta"):
        network = build_encoder(choose(name), FACTS).network
    stem = network.conv1
    assert isinstance(stem, nn.Conv2d)
    assert (stem.kernel_size, stem.stride, stem.padding, stem.bias) == ((3, 3), (1, 1), (1, 1), None)
    assert not [module for module in network.modules() if isinstance(module, nn.MaxPool2d)]


def test_the_first_stage_keeps_32_pixels(build: Callable[..., Encoder]) -> None:
    stem, *stages = (tuple(found.shape) for found in build().feature_maps(pictures()))
    assert stem == (2, 16, 32, 32)
    assert stages == [(2, 16, 32, 32), (2, 32, 16, 16), (2, 64, 8, 8), (2, 128, 4, 4)]


def test_features_are_the_pooled_last_map(build: Callable[..., Encoder]) -> None:
    encoder = build()
    last = encoder.feature_maps(pictures())[-1]
    torch.testing.assert_close(encoder(pictures()), last.mean(dim=(2, 3)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("times", [2, 4])
def test_a_wider_resnet50_has_more_of_every_channel(choose: Callable[..., Choice], times: int) -> None:
    with torch.device("meta"):
        wide, timms = (build_encoder(choose(n), FACTS).state_dict() for n in (f"resnet50x{times}", "resnet50"))
    assert wide.keys() == timms.keys()
    for name, tensor in timms.items():
        grown = [times * size if axis < 2 else size for axis, size in enumerate(tensor.shape)]
        assert list(wide[name].shape) == ([grown[0], 3, 7, 7] if name == "network.conv1.weight" else grown)


def test_without_the_last_stage_features_are_the_pooled_third_map(build: Callable[..., Encoder]) -> None:
    encoder = build("resnet101_stage3")
    maps = encoder.feature_maps(pictures(size=64))
    assert [found.shape[1] for found in maps] == [64, 256, 512, 1024]
    torch.testing.assert_close(encoder(pictures(size=64)), maps[-1].mean(dim=(2, 3)), rtol=1e-4, atol=1e-5)
    assert not [key for key in encoder.state_dict() if "layer4" in key]


@pytest.mark.parametrize("size", [16, 40])
def test_it_takes_other_sizes(build: Callable[..., Encoder], size: int) -> None:
    assert build()(pictures(size=size)).shape == (2, 128)


@pytest.mark.parametrize("name", ["resnet18_small", "resnet18_small_w16"])
def test_the_stem_is_initialized_like_every_convolution(build: Callable[..., Encoder], name: str) -> None:
    network = build(name).network
    for convolution in (network.conv1, network.layer1[0].conv1, network.layer4[1].conv2):
        fan_out = convolution.out_channels * 9
        assert convolution.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.15)


def test_residual_branches_start_at_zero_as_timms(build: Callable[..., Encoder]) -> None:
    network = build().network
    last = [block.bn2.weight for stage in (network.layer1, network.layer4) for block in stage]
    assert not torch.stack([weight.abs().max() for weight in last]).any()


def test_grey_pictures(build: Callable[..., Encoder]) -> None:
    encoder = build(in_channels=1)
    assert len(encoder.mean) == len(encoder.std) == 1
    assert encoder(pictures(channels=1)).shape == (2, 128)


def test_layer_normalization_replaces_every_batch_norm(build: Callable[..., Encoder]) -> None:
    encoder = build(norm="layer")
    norms = [module for module in encoder.modules() if isinstance(module, nn.GroupNorm)]
    assert not [module for module in encoder.modules() if isinstance(module, _BatchNorm)]
    assert len(norms) == 20  # one after each convolution
    assert {norm.num_groups for norm in norms} == {1}
    assert encoder(pictures()).shape == (2, 128)


def test_siblings_keep_the_specification_but_not_the_weights(build: Callable[..., Encoder]) -> None:
    encoder = build(norm="layer")
    sibling = encoder.sibling()
    ours, theirs = encoder.state_dict(), sibling.state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}
    assert not torch.equal(ours["network.conv1.weight"], theirs["network.conv1.weight"])


def test_it_has_no_patch_tokens(build: Callable[..., Encoder]) -> None:
    with pytest.raises(ClvrBenchError, match="has no patch tokens"):
        build().tokens(pictures())
