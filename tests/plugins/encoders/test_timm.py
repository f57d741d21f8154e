from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from clvr_bench import ClvrBenchError, DataFacts, EncoderFacts
from clvr_bench.assembly import encoder_facts
from clvr_bench.combinations import Choice
from clvr_bench.options import resolve_options
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind
from clvr_bench.toolbox import TimmEncoder

VIT = "vit_tiny_patch16_224"


@pytest.fixture(scope="session")
def facts(plugins: Plugins) -> Callable[..., EncoderFacts]:
    """Look an encoder up and learn its facts, without memory for its weights."""

    def look_up(name: str, *, size: int = 32, **options: object) -> EncoderFacts:
        entry = plugins.registry.get(Kind.ENCODER, name)
        choice = Choice(entry, resolve_options(entry.options, options, name))
        return encoder_facts(choice, DataFacts("image", train_size=10, image_size=size))

    return look_up


@pytest.fixture(scope="module")
def resnet18() -> TimmEncoder:
    torch.manual_seed(0)
    return TimmEncoder.named("resnet18").eval()


@pytest.fixture(scope="module")
def vit() -> TimmEncoder:
    torch.manual_seed(0)
    return TimmEncoder.named(VIT).eval()


@pytest.fixture(autouse=True)
def _no_gradient() -> object:
    with torch.no_grad():
        yield


def pictures(count: int = 2, size: int = 32, channels: int = 3) -> torch.Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def test_resnet18_is_timms_own(plugins: Plugins) -> None:
    with torch.device("meta"):
        ours = plugins.registry.get(Kind.ENCODER, "resnet18").factory().network.state_dict()
        theirs = timm.create_model("resnet18", num_classes=0).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}


def test_a_name_that_timm_lacks_is_unknown(plugins: Plugins) -> None:
    with pytest.raises(ClvrBenchError, match=r"unknown encoder 'resnet19'\. Did you mean 'resnet1\d\w*'\?"):
        plugins.registry.get(Kind.ENCODER, "resnet19")


@pytest.mark.parametrize(
    ("name", "millions", "feature_dim"), [("resnet18", 11.18, 512), ("resnet50", 23.51, 2048), (VIT, 5.52, 192)]
)
def test_parameters_and_feature_dim(
    facts: Callable[..., EncoderFacts], name: str, millions: float, feature_dim: int
) -> None:
    found = facts(name)
    assert round(found.parameters / 1e6, 2) == millions
    assert found.feature_dim == feature_dim


def test_facts_tell_patch_encoders_from_others(facts: Callable[..., EncoderFacts]) -> None:
    resnet18, vit = facts("resnet18"), facts(VIT)
    assert (resnet18.has_feature_maps, resnet18.has_tokens, resnet18.minimum_size) == (True, False, 1)
    assert (vit.has_feature_maps, vit.has_tokens, vit.minimum_size) == (True, True, 16)


def test_features_are_the_networks_of_normalized_pictures(resnet18: TimmEncoder) -> None:
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = resnet18.network((pictures() - mean) / std)
    assert expected.shape == (2, 512)
    torch.testing.assert_close(resnet18(pictures()), expected, rtol=1e-4, atol=1e-5)


def test_pictures_are_normalized_as_timm_says_for_the_network(vit: TimmEncoder) -> None:
    assert vit.mean.flatten().tolist() == vit.std.flatten().tolist() == [0.5, 0.5, 0.5]


def test_normalized_pictures_are_not_normalized_again(resnet18: TimmEncoder) -> None:
    normalized = (pictures() - resnet18.mean) / resnet18.std
    torch.testing.assert_close(resnet18(normalized, normalize=False), resnet18(pictures()), rtol=1e-4, atol=1e-5)


def test_every_way_in_counts_the_pictures(vit: TimmEncoder) -> None:
    before = vit.passes
    vit(pictures(2))
    vit.feature_maps(pictures(3))
    vit.tokens(pictures(5))
    assert vit.passes - before == 10


def test_feature_maps_go_from_fine_to_coarse(resnet18: TimmEncoder) -> None:
    shapes = [tuple(found.shape) for found in resnet18.feature_maps(pictures(size=64))]
    assert shapes == [(2, 64, 32, 32), (2, 64, 16, 16), (2, 128, 8, 8), (2, 256, 4, 4), (2, 512, 2, 2)]


def test_the_last_feature_map_pools_to_the_feature(resnet18: TimmEncoder) -> None:
    last = resnet18.feature_maps(pictures(size=64))[-1]
    torch.testing.assert_close(last.mean(dim=(2, 3)), resnet18(pictures(size=64)), rtol=1e-4, atol=1e-5)


def test_a_vision_transformer_has_a_map_of_every_block(vit: TimmEncoder) -> None:
    maps = vit.feature_maps(pictures(size=48))
    assert [tuple(found.shape) for found in maps] == [(2, 192, 3, 3)] * 12


@pytest.mark.parametrize("size", [32, 48])
def test_a_vision_transformer_takes_small_pictures(vit: TimmEncoder, size: int) -> None:
    assert vit(pictures(size=size)).shape == (2, 192)


def test_tokens_are_timms_with_the_class_token_first(vit: TimmEncoder) -> None:
    tokens = vit.tokens(pictures(size=48))
    assert tokens.shape == (2, 1 + 9, 192)
    expected = vit.network.forward_features((pictures(size=48) - 0.5) / 0.5)
    torch.testing.assert_close(tokens, expected, rtol=1e-4, atol=1e-5)


def test_keeping_all_patches_in_another_order_permutes_the_tokens(vit: TimmEncoder) -> None:
    keep = torch.stack([torch.randperm(9, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)])
    whole, permuted = vit.tokens(pictures(size=48)), vit.tokens(pictures(size=48), keep=keep)
    expected = torch.stack([whole[sample, torch.cat([torch.tensor([0]), 1 + keep[sample]])] for sample in (0, 1)])
    torch.testing.assert_close(permuted, expected, rtol=1e-4, atol=1e-4)


def test_only_kept_patches_are_encoded(vit: TimmEncoder) -> None:
    keep = torch.tensor([[0, 1], [2, 8]])  # 3 x 3 patches of 16 px in raster order, other ones for each picture
    original = vit.tokens(pictures(size=48), keep=keep)
    dropped, kept = pictures(size=48), pictures(size=48)
    dropped[:, :, 16:32] = 0  # patches 3 to 5, kept of neither
    kept[1, :, 32:, 32:] = 0  # patch 8, kept of the second
    assert original.shape == (2, 1 + 2, 192)
    torch.testing.assert_close(vit.tokens(dropped, keep=keep), original)
    changed = vit.tokens(kept, keep=keep)
    torch.testing.assert_close(changed[0], original[0])
    assert not torch.allclose(changed[1], original[1], atol=1e-3)


def test_all_prefix_tokens_stay_when_patches_are_dropped() -> None:
    with torch.device("meta"):
        encoder = TimmEncoder.named("deit_tiny_distilled_patch16_224").eval()  # a class and a distillation token
        assert encoder.tokens(pictures(size=48).to("meta")).shape == (2, 2 + 9, 192)
        assert encoder.tokens(pictures(size=48).to("meta"), keep=torch.zeros(2, 4).long()).shape == (2, 2 + 4, 192)


def test_an_encoder_without_patches_says_so(resnet18: TimmEncoder) -> None:
    with pytest.raises(ClvrBenchError, match=r"TimmEncoder has no patch tokens\. Use a patch encoder, such as 'vit_"):
        resnet18.tokens(pictures())


def test_grey_pictures_are_normalized_by_the_mean_of_the_channels() -> None:
    encoder = TimmEncoder.named("resnet18", in_channels=1).eval()
    assert encoder.network.conv1.in_channels == 1
    assert encoder.mean.flatten().tolist() == pytest.approx([(0.485 + 0.456 + 0.406) / 3])
    assert encoder.std.flatten().tolist() == pytest.approx([(0.229 + 0.224 + 0.225) / 3])
    assert encoder(pictures(channels=1)).shape == (2, 512)


def test_layer_normalization_replaces_every_batch_norm() -> None:
    encoder = TimmEncoder.named("resnet18", norm="layer").eval()
    norms = [module for module in encoder.modules() if isinstance(module, nn.GroupNorm)]
    assert not [module for module in encoder.modules() if isinstance(module, _BatchNorm)]
    assert len(norms) == 20  # one after each convolution
    assert {norm.num_groups for norm in norms} == {1}
    assert encoder(pictures()).shape == (2, 512)


def test_layer_normalization_leaves_networks_without_batch_norm_as_they_are() -> None:
    with torch.device("meta"):
        own, layer = (TimmEncoder.named(VIT, norm=norm).state_dict() for norm in ("own", "layer"))
    assert {key: value.shape for key, value in own.items()} == {key: value.shape for key, value in layer.items()}


def test_with_its_own_norm_a_network_keeps_batch_norm(resnet18: TimmEncoder) -> None:
    assert len([module for module in resnet18.modules() if isinstance(module, _BatchNorm)]) == 20


@pytest.mark.parametrize("option", [{"norm": "group"}, {"in_channels": "three"}, {"pretrained": True}])
def test_other_options_are_refused(facts: Callable[..., EncoderFacts], option: dict[str, object]) -> None:
    with pytest.raises(ClvrBenchError, match=next(iter(option))):
        facts("resnet18", **option)
