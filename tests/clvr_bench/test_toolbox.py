from __future__ import annotations

import pytest
import torch
from torch import nn

from clvr_bench import ClvrBenchError
from clvr_bench.toolbox import linear_head, mlp, normalized_mlp, require


@pytest.mark.parametrize("widths", [(4, 3), (4, 8, 3), (4, 8, 16, 3)])
def test_an_mlp_maps_its_first_width_to_its_last(widths: tuple[int, ...]) -> None:
    assert mlp(*widths)(torch.rand(5, 4)).shape == (5, 3)


def test_hidden_layers_are_normalized_and_rectified_and_the_last_is_bare() -> None:
    kinds = [type(layer) for layer in mlp(4, 8, 16, 3)]
    assert kinds == [*[nn.Linear, nn.BatchNorm1d, nn.ReLU] * 2, nn.Linear]


def test_widths_are_those_given() -> None:
    layers = [layer for layer in mlp(4, 8, 16, 3) if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == [(4, 8), (8, 16), (16, 3)]


def test_a_bias_is_left_to_batch_norm_where_there_is_one() -> None:
    biased = [layer.bias is not None for layer in mlp(4, 8, 3) if isinstance(layer, nn.Linear)]
    assert biased == [False, True]


def test_a_last_bias_can_be_left_out_and_nothing_else_changes() -> None:
    torch.manual_seed(0)
    biased, after = mlp(4, 8, 3), nn.Linear(3, 3)
    torch.manual_seed(0)
    bare, after_bare = mlp(4, 8, 3, last_bias=False), nn.Linear(3, 3)
    expected = {name: value for name, value in biased.state_dict().items() if name != "3.bias"}
    torch.testing.assert_close(dict(bare.state_dict()), expected, rtol=0, atol=0)
    assert torch.equal(after_bare.weight, after.weight)  # what is built next starts the same, too


def test_a_normalized_mlp_ends_with_plain_batch_norm_and_no_bias_before_it() -> None:
    torch.manual_seed(0)
    bare = mlp(4, 8, 3, last_bias=False)
    torch.manual_seed(0)
    head = normalized_mlp(4, 8, 3)
    assert [type(layer) for layer in head] == [*[type(layer) for layer in bare], nn.BatchNorm1d]
    assert torch.equal(head[3].weight, bare[3].weight)
    assert head[3].bias is None
    assert list(head[4].parameters()) == []
    outputs = head(torch.rand(50, 4))
    assert torch.allclose(outputs.mean(0), torch.zeros(3), atol=1e-5)
    assert torch.allclose(outputs.std(0, correction=0), torch.ones(3), atol=1e-2)


def test_without_batch_norm_every_layer_has_its_bias() -> None:
    layers = list(mlp(4, 8, 3, batch_norm=False))
    assert [type(layer) for layer in layers] == [nn.Linear, nn.ReLU, nn.Linear]
    assert layers[0].bias is not None


def test_two_widths_are_one_linear_layer() -> None:
    (layer,) = mlp(4, 3)
    assert isinstance(layer, nn.Linear)


@pytest.mark.parametrize("widths", [(), (4,)])
def test_fewer_than_two_widths_are_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"mlp needs an input and an output width, got \("):
        mlp(*widths)


def test_a_linear_head_is_a_linear_layer() -> None:
    head = linear_head(4, 3)
    assert isinstance(head, nn.Linear)
    assert (head.in_features, head.out_features) == (4, 3)


def test_a_normalized_linear_head_has_outputs_without_a_common_direction() -> None:
    head = linear_head(4, 3, batch_norm=True)
    inputs = 5 + torch.rand(50, 4, generator=torch.Generator().manual_seed(0))
    biased = head(inputs) - head[1].bias  # type: ignore[index]  # a sequence
    torch.testing.assert_close(biased.mean(dim=0), torch.zeros(3), rtol=0, atol=1e-5)
    assert len(list(head.parameters())) == 2


def test_what_is_required_passes_where_it_holds_and_is_refused_in_one_line_where_not() -> None:
    require("simclr", True, "temperature must be positive", 0.1)
    with pytest.raises(ClvrBenchError) as caught:
        require("simclr", False, "temperature must be positive", 0.0, "Typical: 0.1 to 0.5.")
    assert str(caught.value) == "simclr: temperature must be positive, got 0.0. Typical: 0.1 to 0.5."
    with pytest.raises(ClvrBenchError, match=r"^simclr: temperature must be positive, got 0\.0\.$"):
        require("simclr", False, "temperature must be positive", 0.0)
