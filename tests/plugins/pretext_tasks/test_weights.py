from __future__ import annotations

import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import torchvision
from lightly.models import ResNetGenerator
from torch import Tensor, nn
from torch.nn import functional as F

import clvr_bench
from clvr_bench import ClvrBenchError, InputFile
from clvr_bench.options import options_of, resolve_options
from clvr_bench.records import PretrainingRecord
from clvr_bench.toolbox import NORMALIZATIONS, WEIGHT_FORMATS, TimmEncoder
from clvr_plugins.pretext_tasks.weights import FormatName, NormalizationName, Weights
from tests.conftest import CONTRACT_PLUGINS, Answer
from tests.plugins.pretext_tasks.weight_layouts import (
    IMAGENET,
    LAYOUTS,
    PIXELS,
    Layout,
    head,
    prefixed,
    resnet,
    scrambled,
    small_resnet,
    vit,
)

OPTIONS = options_of(Weights)


def weights(encoder: Any, path: Path, **options: Any) -> Weights:
    """Build the task as a suite would."""
    return Weights(encoder, None, **resolve_options(OPTIONS, {"file": str(path), **options}, "suite"))  # type: ignore[arg-type]  # it looks at no data


def loaded(encoder: Any, path: Path, **options: Any) -> Weights:
    task = weights(encoder, path, **options)
    task.before_epoch(None)  # type: ignore[arg-type]  # it looks at no data
    return task.eval()


def pictures(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def normalized(images: Tensor, layout: Layout) -> Tensor:
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in layout.normalization)
    return (images - mean) / std


@pytest.mark.parametrize("by_name", [True, False], ids=["by name", "auto"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))
@torch.no_grad()
def test_features_are_those_of_the_network_that_was_saved(layout: Layout, by_name: bool, tmp_path: Path) -> None:
    source = layout.write(tmp_path / "checkpoint.pth")
    task = loaded(layout.build(), tmp_path / "checkpoint.pth", **({"format": layout.format} if by_name else {}))
    expected = layout.features(source, normalized(pictures(), layout))
    torch.testing.assert_close(task.representation()(pictures()), expected, rtol=1e-3, atol=1e-4)
    facts = task.facts()
    assert facts["format"] == layout.format or (not by_name and layout.format in facts["formats_alike"])
    assert facts["missing"] == facts["unexpected"] == []


def test_a_row_of_children_that_lost_an_activation_is_not_taken_for_a_resnet(tmp_path: Path) -> None:
    network = nn.Sequential(*list(ResNetGenerator("resnet-9", width=0.125).children())[:-1])
    torch.save({"state_dict": prefixed(network.state_dict(), "backbone.")}, tmp_path / "lightly.ckpt")
    with pytest.raises(ClvrBenchError, match="only in part"):
        weights(TimmEncoder(small_resnet(num_classes=0)), tmp_path / "lightly.ckpt")


@torch.no_grad()
def test_padding_in_two_steps_is_padding_in_one() -> None:
    """SwAV's and VICReg's networks pad by one pixel, and their first convolution by two."""
    network = scrambled(torchvision.models.resnet18())
    expected = network(pictures())
    network.conv1.padding = (2, 2)
    torch.testing.assert_close(nn.Sequential(nn.ConstantPad2d(1, 0.0), network)(pictures()), expected)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Weights of the narrow ResNet, as timm saves them."""
    LAYOUTS["timm"].write(tmp_path / "resnet.pth")
    return tmp_path / "resnet.pth"


@pytest.fixture
def encoder() -> TimmEncoder:
    return LAYOUTS["timm"].build()


def without(path: Path, *names: str) -> Path:
    state = torch.load(path, weights_only=True)
    torch.save({name: tensor for name, tensor in state.items() if name not in names}, path)
    return path


def test_a_part_is_refused_with_counts_and_names(checkpoint: Path, encoder: TimmEncoder) -> None:
    without(checkpoint, "bn1.weight", "layer1.0.conv1.weight")
    with pytest.raises(ClvrBenchError) as refused:
        weights(encoder, checkpoint)
    total = len([name for name in encoder.state_dict() if not name.endswith("num_batches_tracked")])
    assert str(refused.value) == (
        f"resnet.pth: it fits the encoder only in part. Format timm: {total - 2} of {total} tensors fit, "
        "2 (bn1.weight, layer1.0.conv1.weight) missing, 0 unexpected, 0 of another shape. "
        "To load what fits, set partial=true, or give --partial to evaluate."
    )


@torch.no_grad()
def test_a_part_is_loaded_where_it_is_asked_for_and_the_record_says_what(
    checkpoint: Path, encoder: TimmEncoder
) -> None:
    without(checkpoint, "layer1.0.conv1.weight")
    before = encoder.network.layer1[0].conv1.weight.clone()
    task = loaded(encoder, checkpoint, partial=True)
    state = torch.load(checkpoint, weights_only=True)
    assert torch.equal(encoder.network.layer1[0].conv1.weight, before)
    assert torch.equal(encoder.network.layer2[0].conv1.weight, state["layer2.0.conv1.weight"])
    assert task.facts()["missing"] == ["layer1.0.conv1.weight"]


def test_what_is_neither_the_encoders_nor_a_known_heads_is_refused(checkpoint: Path, encoder: TimmEncoder) -> None:
    state = torch.load(checkpoint, weights_only=True)
    torch.save({**state, "adapter.weight": torch.ones(2)}, checkpoint)
    with pytest.raises(ClvrBenchError, match=r"0 missing, 1 \(adapter\.weight\) unexpected"):
        weights(encoder, checkpoint)


def test_another_architecture_is_refused_and_what_would_fit_is_said(tmp_path: Path) -> None:
    small = TimmEncoder(resnet(64, stem=3, num_classes=0))
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(ClvrBenchError) as refused:
        weights(small, tmp_path / "resnet18.pth")
    assert "24 (layer1.1.conv1.weight" not in str(refused.value)
    assert "1 (conv1.weight: 64x3x7x7 in the file, 64x3x3x3 here) of another shape" in str(refused.value)
    assert "the file looks like resnet18 with a 7x7 stem" in str(refused.value)
    assert "the encoder looks like a ResNet of 1-1-1-1 blocks with a 3x3 stem" in str(refused.value)


def test_nothing_in_common_is_refused_even_in_part(checkpoint: Path) -> None:
    with pytest.raises(ClvrBenchError, match=r"resnet\.pth: nothing in it fits the encoder\. .* 0 of 30 tensors fit"):
        weights(TimmEncoder(vit(num_classes=0)), checkpoint, partial=True)


def test_the_wrong_format_is_refused(checkpoint: Path, encoder: TimmEncoder) -> None:
    with pytest.raises(ClvrBenchError, match=r"nothing in it fits the encoder\. Format moco under 'state_dict.module"):
        weights(encoder, checkpoint, format="moco")


def test_a_file_that_does_not_fit_is_refused_before_any_memory_is_taken(checkpoint: Path) -> None:
    with torch.device("meta"):
        assert weights(LAYOUTS["timm"].build(), checkpoint).encoder.mean.is_meta
        with pytest.raises(ClvrBenchError, match="nothing in it fits"):
            weights(TimmEncoder(vit(num_classes=0)), checkpoint)


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("none", [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]),
        ("half", [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
        ("imagenet", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ("encoder", [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]),
    ],
)
def test_the_normalization_can_be_said(checkpoint: Path, name: str, mean: list[float], std: list[float]) -> None:
    network = resnet(num_classes=0)
    network.pretrained_cfg = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    facts = loaded(TimmEncoder(network), checkpoint, normalization=name).facts()
    assert facts["mean"] == pytest.approx(mean)
    assert facts["std"] == pytest.approx(std)


def test_one_channel_is_normalized_by_the_means_of_three(tmp_path: Path) -> None:
    network = scrambled(resnet(num_classes=0))
    network.conv1 = nn.Conv2d(1, 8, 7, stride=2, padding=3, bias=False)
    torch.save({"state_dict": prefixed(network.state_dict(), "module.encoder_q.")}, tmp_path / "grey.pth")
    task = loaded(TimmEncoder(network, in_channels=1), tmp_path / "grey.pth")
    assert task.encoder.mean.flatten().tolist() == pytest.approx([0.449])
    assert task.encoder.std.flatten().tolist() == pytest.approx([0.226])


def test_a_file_that_fits_formats_of_different_normalization_is_asked_about(tmp_path: Path) -> None:
    network = vit(num_classes=0)
    torch.save(dict(network.state_dict()), tmp_path / "vit.pth")
    network.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    with pytest.raises(ClvrBenchError, match=r"timm, clvr_bench \(mean 0\.50/.*; dino \(mean 0\.48/") as asked:
        weights(TimmEncoder(network), tmp_path / "vit.pth")
    assert "Say which it is with the option 'format'" in str(asked.value)
    with torch.device("meta"), pytest.raises(ClvrBenchError, match="normalized differently"):
        weights(TimmEncoder(network), tmp_path / "vit.pth")
    assert loaded(TimmEncoder(network), tmp_path / "vit.pth", format="dino").facts()["mean"] == pytest.approx(
        IMAGENET[0]
    )
    assert loaded(TimmEncoder(network), tmp_path / "vit.pth", normalization="encoder").facts()["mean"] == [0.5] * 3


def test_timms_own_transformers_are_not_asked_about(tmp_path: Path) -> None:
    torch.save({"model": vit().state_dict()}, tmp_path / "vit.pth")
    network = vit(num_classes=0)
    network.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    facts = loaded(TimmEncoder(network), tmp_path / "vit.pth").facts()
    assert facts["format"] == "timm"
    assert facts["formats_alike"] == ["timm"]
    assert facts["mean"] == [0.5, 0.5, 0.5]


def test_converted_weights_of_simclr_are_asked_about_since_torchvisions_look_alike(tmp_path: Path) -> None:
    layout = Layout(
        "simclr", LAYOUTS["timm"].source, resnet, lambda s: {"state_dict": {**s, **head("fc.weight")}}, PIXELS
    )
    source = layout.write(tmp_path / "resnet50-1x.pth")
    with pytest.raises(ClvrBenchError, match=r"simclr \(mean 0\.00/0\.00/0\.00, std 1\.00/1\.00/1\.00\)"):
        weights(layout.build(), tmp_path / "resnet50-1x.pth")
    with torch.no_grad():
        task = loaded(layout.build(), tmp_path / "resnet50-1x.pth", format="simclr")
        torch.testing.assert_close(task.representation()(pictures()), source(pictures()), rtol=1e-3, atol=1e-4)


def test_a_file_that_was_changed_since_the_run_was_planned_is_refused(checkpoint: Path, encoder: TimmEncoder) -> None:
    task = weights(encoder, checkpoint)
    without(checkpoint, "fc.weight")
    with pytest.raises(ClvrBenchError, match=r"resnet\.pth: it was changed since the run was planned"):
        task.before_epoch(None)  # type: ignore[arg-type]  # it looks at no data


def test_only_the_hash_of_a_file_serves_to_rebuild_but_not_to_run(checkpoint: Path, encoder: TimmEncoder) -> None:
    known = weights(LAYOUTS["timm"].build(), checkpoint, normalization="half")
    known.before_epoch(None)  # type: ignore[arg-type]  # it looks at no data
    rebuilt = Weights(encoder, None, file=InputFile(str(known._file)))  # type: ignore[arg-type]  # it looks at no data
    assert rebuilt.facts() == {}
    with pytest.raises(ClvrBenchError, match=r"only the hash of file@[0-9a-f]{12} is known"):
        rebuilt.before_epoch(None)  # type: ignore[arg-type]  # it looks at no data
    rebuilt.representation().load_state_dict(known.representation().state_dict())
    with torch.no_grad():
        features = [task.eval().representation()(pictures()) for task in (known, rebuilt)]
    assert torch.equal(*features)


def test_the_row_says_which_labels_the_weights_saw() -> None:
    assert Weights.labels == "none"
    assert Weights.reported_labels(**resolve_options(OPTIONS, {"file": str(Path(__file__))}, "suite")) == "unknown"
    assert Weights.reported_labels(labels="fine") == "fine"


def test_every_format_can_be_named() -> None:
    assert set(get_args(FormatName)) == {layout.name for layout in WEIGHT_FORMATS} | {"auto"}
    assert set(get_args(NormalizationName)) == NORMALIZATIONS.keys() | {"format", "encoder"}
    assert {layout.format for layout in LAYOUTS.values()} | {"clvr_bench"} == {layout.name for layout in WEIGHT_FORMATS}


@pytest.fixture
def weights_of(tmp_path: Path) -> Callable[..., Path]:
    """Write weights for the suite's tiny encoder, as DataParallel leaves them."""

    def write(name: str, seed: int = 0) -> Path:
        generator = torch.Generator().manual_seed(seed)
        convolution = {"network.0.weight": torch.randn(8, 3, 3, 3, generator=generator)}
        norm = {f"network.1.{part}": torch.rand(8, generator=generator) for part in ("weight", "bias", "running_mean")}
        path = tmp_path / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({**convolution, **norm, "network.1.running_var": torch.ones(8)}, path)
        return path

    return write


def run_of(results: Path) -> Path:
    (folder,) = (results / "custom" / "runs").iterdir()
    return folder


RUN = ["--pretext-task", "weights", "--set", "weights.format=clvr_bench"]


def test_a_run_says_where_its_weights_came_from(
    tiny_run: Callable[..., Answer], cli: Callable[..., Answer], weights_of: Callable[..., Path], tmp_path: Path
) -> None:
    path = weights_of("ours.pth")
    content = sha256(path.read_bytes()).hexdigest()
    answer = tiny_run(*RUN, "--set", f"weights.file={path}", "--set", "weights.labels=fine")
    assert answer.code == 0, answer.out + answer.err
    record = PretrainingRecord.load(run_of(tmp_path / "results") / "pretraining.json")
    assert record.identity["pretext_task"]["options"]["file"] == f"sha256:{content}"
    assert record.facts["options_shown"]["file"] == f"ours.pth@{content[:12]}"
    assert record.facts["labels"] == "fine"
    kept = record.facts["task"]
    assert (kept["file"], kept["hash"], kept["format"]) == ("ours.pth", f"sha256:{content}", "clvr_bench")
    assert (kept["matched"], kept["missing"], kept["unexpected"]) == (5, [], [])
    (row,) = clvr_bench.leaderboard(tmp_path / "results").itertuples()
    assert row.uses_labels == "fine"
    assert f"file=ours.pth@{content[:12]}" in row.options
    assert cli("verify").code == 0


def test_the_same_file_elsewhere_is_the_same_run_and_a_changed_one_another(
    tiny_run: Callable[..., Answer], weights_of: Callable[..., Path], tmp_path: Path
) -> None:
    first, copy = weights_of("first.pth"), tmp_path / "copy.pth"
    shutil.copy(first, copy)
    for path in (first, copy):
        assert tiny_run(*RUN, "--set", f"weights.file={path}").code == 0
    assert run_of(tmp_path / "results")
    weights_of("first.pth", seed=1)
    assert tiny_run(*RUN, "--set", f"weights.file={first}").code == 0
    assert len(list((tmp_path / "results" / "custom" / "runs").iterdir())) == 2


def test_an_encoder_is_loaded_from_a_run_whose_file_is_gone(
    tiny_run: Callable[..., Answer], weights_of: Callable[..., Path], tmp_path: Path
) -> None:
    path = weights_of("ours.pth")
    given = ["--set", f"weights.file={path}", "--set", "weights.normalization=half"]
    assert tiny_run(*RUN, *given).code == 0
    state = torch.load(path, weights_only=True)
    path.unlink()
    encoder = clvr_bench.load_encoder(run_of(tmp_path / "results"), [CONTRACT_PLUGINS])
    maps = F.conv2d((pictures() - 0.5) / 0.5, state["network.0.weight"], stride=2, padding=1)
    norm = [state[f"network.1.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
    torch.testing.assert_close(encoder(pictures()), F.batch_norm(maps, *norm).relu().mean(dim=(2, 3)))


def test_what_a_run_saved_serves_as_ready_made_weights(
    tiny_run: Callable[..., Answer], weights_of: Callable[..., Path], tmp_path: Path
) -> None:
    given = ["--set", f"weights.file={weights_of('ours.pth')}", "--set", "weights.normalization=none"]
    assert tiny_run(*RUN, *given, "--results", "one").code == 0
    saved = run_of(tmp_path / "one")
    assert tiny_run(*RUN, "--set", f"weights.file={saved / 'weights.safetensors'}", "--results", "two").code == 0
    first, second = (
        clvr_bench.load_encoder(folder, [CONTRACT_PLUGINS]) for folder in (saved, run_of(tmp_path / "two"))
    )
    assert torch.equal(first(pictures()), second(pictures()))


def test_a_list_of_files_is_an_axis(
    tiny_run: Callable[..., Answer], weights_of: Callable[..., Path], tmp_path: Path
) -> None:
    files = ", ".join(f"'{weights_of(name, seed)}'" for seed, name in enumerate(("a.pth", "b.pth")))
    assert tiny_run(*RUN, "--set", f"weights.file=[{files}]").code == 0
    options = clvr_bench.leaderboard(tmp_path / "results").options
    assert sorted(text.split("@")[0] for text in options) == ["file=a.pth", "file=b.pth"]


def test_a_file_that_does_not_fit_stops_the_suite_before_anything_runs(
    tiny_run: Callable[..., Answer], checkpoint: Path, tmp_path: Path
) -> None:
    answer = tiny_run(
        "--pretext-task", "raw_pixels", "--pretext-task", "weights", "--set", f"weights.file={checkpoint}"
    )
    assert answer.code == 2
    assert "resnet.pth: nothing in it fits the encoder" in answer.err
    assert not list((tmp_path / "results").glob("*/runs/*"))


def test_a_file_that_is_not_there_is_one_line(tiny_run: Callable[..., Answer]) -> None:
    answer = tiny_run(*RUN, "--set", "weights.file=nowhere.pth")
    assert answer.code == 2
    assert "pretext task 'weights': file: there is no file 'nowhere.pth' in" in answer.err


def test_a_check_tries_the_task_with_the_encoder_that_its_file_is_for(
    cli: Callable[..., Answer], checkpoint: Path, tmp_path: Path
) -> None:
    torch.save(TimmEncoder.named("resnet10t").network.state_dict(), tmp_path / "resnet10t.pth")
    given = ["--set", f"weights.file={tmp_path / 'resnet10t.pth'}"]
    asked = cli("check", "weights", *given)
    assert asked.code == 0
    assert "0 hold, 0 fail" in asked.out
    assert "Its file is for no encoder of the check" in " ".join(asked.out.split())
    answer = cli("check", "weights", *given, "--set", 'weights.encoders=["resnet10t"]')
    assert answer.code == 0
    assert "holds  saved weights give the same features" in answer.out
    needs = cli("check", "weights")
    assert needs.code == 2
    assert "option 'file' (file) is required" in needs.err
