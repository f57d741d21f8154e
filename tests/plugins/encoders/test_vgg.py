from __future__ import annotations

import torch
from torch import nn

from clvr_bench import DataFacts
from clvr_bench.assembly import build_encoder, encoder_facts
from clvr_bench.combinations import Choice
from clvr_bench.options import resolve_options
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind

FACTS = DataFacts("image", train_size=10, image_size=32)


def choice(plugins: Plugins) -> Choice:
    entry = plugins.registry.get(Kind.ENCODER, "vgg16_features")
    return Choice(entry, resolve_options(entry.options, {}, "vgg16_features"))


def test_it_is_the_thirteen_convolutions_alone(plugins: Plugins) -> None:
    found = encoder_facts(choice(plugins), FACTS)
    assert (round(found.parameters / 1e6, 2), found.feature_dim) == (14.72, 512)
    with torch.device("meta"):
        encoder = build_encoder(choice(plugins), FACTS)
    assert len([module for module in encoder.modules() if isinstance(module, nn.Conv2d)]) == 13
    assert not [module for module in encoder.modules() if isinstance(module, nn.Linear)]


def test_features_are_the_pooled_last_map_at_any_size(plugins: Plugins) -> None:
    encoder = build_encoder(choice(plugins), FACTS).eval()
    for size in (32, 96):
        pictures = torch.rand(2, 3, size, size)
        with torch.no_grad():
            last = encoder.feature_maps(pictures)[-1]
            assert last.shape == (2, 512, size // 32, size // 32)
            torch.testing.assert_close(encoder(pictures), last.mean(dim=(2, 3)), rtol=1e-4, atol=1e-5)
