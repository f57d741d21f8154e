from __future__ import annotations

import os
import pickle
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from clvr_bench import ClvrBenchError, Encoder
from clvr_bench.toolbox import Match, Normalization, TimmEncoder, match, read_tensors
from clvr_bench.toolbox.weights.networks import network_of

STATE = {"conv1.weight": torch.arange(12.0).view(3, 4), "bn1.weight": torch.ones(3)}


class Runs:
    """What unpickling would make into a file beside the checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("older", [False, True], ids=["archive", "before torch 1.6"])
@pytest.mark.parametrize("name", ["weights.pth.tar", "weights.safetensors"])  # the content says what it is
def test_checkpoints_are_told_by_their_content(tmp_path: Path, name: str, older: bool) -> None:
    torch.save(OrderedDict(STATE), tmp_path / name, _use_new_zipfile_serialization=not older)
    assert equal(read_tensors(tmp_path / name), STATE)


def test_safetensors_are_told_by_their_content(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "weights.pth")
    assert equal(read_tensors(tmp_path / "weights.pth"), STATE)


@pytest.mark.parametrize("kind", ["safetensors", "archive", "older"])
def test_shapes_are_read_without_values(tmp_path: Path, kind: str) -> None:
    if kind == "safetensors":
        save_file(STATE, tmp_path / "weights")
    else:
        torch.save(STATE, tmp_path / "weights", _use_new_zipfile_serialization=kind == "archive")
    shapes = read_tensors(tmp_path / "weights", shapes_only=True)
    assert {name: tensor.shape for name, tensor in shapes.items()} == {n: t.shape for n, t in STATE.items()}
    assert all(tensor.is_meta for tensor in shapes.values())


def test_values_are_read_whatever_the_default_device(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "weights.pth")
    with torch.device("meta"):
        assert equal(read_tensors(tmp_path / "weights.pth"), STATE)


def test_nested_tensors_get_their_path_and_all_else_is_dropped(tmp_path: Path) -> None:
    content = {
        "state_dict": {"module.weight": nn.Parameter(torch.ones(2)), "note": "text"},
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]},
        "args": Namespace(output=Path("/somewhere"), rate=0.1),
        "epoch": 3,
    }
    torch.save(content, tmp_path / "checkpoint.pth")
    tensors = read_tensors(tmp_path / "checkpoint.pth")
    assert list(tensors) == ["state_dict.module.weight", "optimizer.state.0.step"]
    assert not tensors["state_dict.module.weight"].requires_grad


@pytest.mark.parametrize("older", [False, True], ids=["archive", "before torch 1.6"])
@pytest.mark.parametrize("shapes_only", [False, True])
def test_a_file_that_would_run_code_is_refused_without_running_it(
    tmp_path: Path, older: bool, shapes_only: bool
) -> None:
    content = {**STATE, "surprise": Runs(tmp_path / "ran")}
    torch.save(content, tmp_path / "evil.pth", _use_new_zipfile_serialization=not older)
    with pytest.raises(
        ClvrBenchError, match=r"evil\.pth: not read, because that would run code which it names \(posix"
    ):
        read_tensors(tmp_path / "evil.pth", shapes_only=shapes_only)
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert (tmp_path / "ran").exists()  # the test would have noticed


@pytest.mark.parametrize("content", [np.float64(2.5), nn.Linear(2, 2)], ids=["numpy", "module"])
def test_other_classes_are_refused_by_name(tmp_path: Path, content: object) -> None:
    torch.save({**STATE, "best": content}, tmp_path / "weights.pth")
    with pytest.raises(ClvrBenchError, match=r"\((numpy\.\S*scalar|torch\.nn\S*Linear)\); only tensors") as refused:
        read_tensors(tmp_path / "weights.pth")
    assert "\n" not in str(refused.value)
    assert "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')" in str(refused.value)


@pytest.mark.parametrize("kind", ["safetensors", "archive", "older"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.95])
def test_a_file_that_is_cut_off_is_refused_in_one_line(tmp_path: Path, kind: str, part: float) -> None:
    path, state = tmp_path / "weights", {"weight": torch.ones(1000)}
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "archive")
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    for shapes_only in (False, True):
        with pytest.raises(
            ClvrBenchError, match=r"weights: (a damaged or cut-off|damaged, cut off|neither)"
        ) as refused:
            read_tensors(path, shapes_only=shapes_only)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"a text", b"PK\x03\x04 but no archive", pickle.dumps({"weight": 1.0})])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights").write_bytes(content)
    with pytest.raises(ClvrBenchError, match=r"neither a safetensors file nor|no torch checkpoint"):
        read_tensors(tmp_path / "weights")


@pytest.mark.parametrize("content", [torch.ones(2), [torch.ones(2)], {"epoch": 3}], ids=["tensor", "list", "dict"])
def test_a_file_without_tensors_by_name_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(ClvrBenchError, match=r"it holds no tensors by name, but a (Tensor|list|dict)\."):
        read_tensors(tmp_path / "weights.pth")


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ClvrBenchError, match=r"weights\.pth: cannot be read \(No such file or directory\)\."):
        read_tensors(tmp_path / "weights.pth")


class Custom(Encoder):
    """An encoder that names its parts in its own way."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))

    def encode(self, images: Tensor) -> Tensor:
        features: Tensor = self.stem(images).mean(dim=(2, 3))
        return features


def states(encoder: Encoder) -> dict[str, Tensor]:
    return {name: torch.rand_like(tensor.float()) for name, tensor in encoder.state_dict().items()}


def test_any_encoder_is_matched_by_its_own_names() -> None:
    encoder = Custom()
    found = match(states(encoder), encoder)
    assert found.complete
    assert set(found.matched) == {f"stem.{name}" for name in (
        "0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"
    )}  # fmt: skip


def test_counters_and_the_encoders_own_normalization_are_not_asked_for() -> None:
    encoder = Custom()
    encoder.register_buffer("mean", encoder.mean)  # now a part of its state
    state = {name: t for name, t in states(encoder).items() if "tracked" not in name and name != "mean"}
    assert match(state, encoder).complete
    assert match({**state, "mean": torch.ones(3), "stem.1.num_batches_tracked": torch.tensor(1)}, encoder).complete


def test_shapes_are_enough_and_values_are_copied_when_asked() -> None:
    encoder = Custom()
    state = states(encoder)
    with torch.device("meta"):
        found = match({name: torch.empty(tensor.shape) for name, tensor in state.items()}, Custom())
    found.load(state, encoder)
    assert torch.equal(encoder.stem[0].weight, state["stem.0.weight"])


def test_a_name_that_is_there_twice_counts_once() -> None:
    encoder = Custom()
    state = {f"{prefix}{name}": tensor for name, tensor in states(encoder).items() for prefix in ("", "module.")}
    found = match(state, encoder)
    assert len(found.matched) == len(found.unexpected) == 6
    assert not found.complete


def test_lower_precision_is_taken_as_it_is() -> None:
    encoder = Custom()
    state = {name: tensor.half() for name, tensor in states(encoder).items()}
    match(state, encoder).load(state, encoder)
    assert encoder.stem[0].weight.dtype == torch.float32
    assert torch.equal(encoder.stem[0].weight, state["stem.0.weight"].float())


def found_in(state: dict[str, Tensor], encoder: Encoder | None = None, name: str = "auto") -> Match:
    return match(state, encoder or Custom(), name)


def test_an_unknown_format_is_answered_with_the_near_ones() -> None:
    with pytest.raises(
        ClvrBenchError, match=r"unknown weight format 'mocco'\. Did you mean 'moco'\? Available: auto, "
    ):
        found_in({}, name="mocco")


def test_the_report_tells_all_that_became_of_a_file() -> None:
    encoder = TimmEncoder.named("resnet10t")
    own = {name.removeprefix("network."): tensor for name, tensor in states(encoder).items()}
    first = own.pop("conv1.0.weight")
    state = {f"state_dict.module.encoder_q.{name}": tensor for name, tensor in own.items()}
    state |= {f"state_dict.module.encoder_k.{name}": tensor for name, tensor in own.items()}
    state |= {"state_dict.module.encoder_q.conv1.3.weight": first[:1], "state_dict.module.encoder_q.fc.0.bias": first}
    state |= {"state_dict.module.queue": first, "state_dict.module.temperature": first, "optimizer.state.0": first}
    report = found_in(state, encoder).report()
    kept = len([name for name in own if "tracked" not in name])
    assert report == (
        f"Format moco under 'state_dict.module.encoder_q.': {kept - 1} of {kept + 1} tensors fit, "
        "1 (conv1.0.weight) missing, 1 (state_dict.module.temperature) unexpected, "
        "1 (conv1.3.weight: 1x3x3x3 in the file, 32x24x3x3 here) of another shape. "
        f"Left out as parts that are not the encoder's: module.encoder_k ({kept}), fc (1), module.queue (1). "
        "Not looked at: 1 tensors elsewhere in the file."
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", "resnet18 with a 7x7 stem"),
        ("resnet50", "resnet50 with a 7x7 stem"),
        ("wide_resnet50_2", "resnet50 with a 7x7 stem"),
        ("vit_tiny_patch16_224", "vit_tiny_patch16, 12 blocks 192 wide on patches of 16 px"),
        ("vgg11", ""),
    ],
)
def test_networks_are_recognized_by_their_shapes(name: str, expected: str) -> None:
    with torch.device("meta"):
        state = TimmEncoder.named(name).network.state_dict()
    assert network_of({key: tuple(tensor.shape) for key, tensor in state.items()}) == expected


def test_a_small_stem_is_said_to_be_one() -> None:
    with torch.device("meta"):
        state = TimmEncoder.named("resnet18").network.state_dict()
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()} | {"conv1.weight": (64, 3, 3, 3)}
    assert network_of(shapes) == "resnet18 with a 3x3 stem (such as resnet18_small)"


def test_normalizations_are_averaged_for_another_number_of_channels() -> None:
    three = Normalization((0.2, 0.4, 0.6), (0.1, 0.2, 0.3))
    assert three.for_channels(3) is three
    assert three.for_channels(1).mean == pytest.approx((0.4,))
    assert three.for_channels(2).std == pytest.approx((0.2, 0.2))


def test_timms_encoders_say_what_they_expect_on_the_meta_device_too() -> None:
    with torch.device("meta"):
        assert TimmEncoder.named("vit_tiny_patch16_224").normalization == Normalization((0.5,) * 3, (0.5,) * 3)
        assert TimmEncoder.named("resnet18", in_channels=1).normalization.mean == pytest.approx((0.449,))
