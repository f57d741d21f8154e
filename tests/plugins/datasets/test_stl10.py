"""STL-10, on small files in the format of the originals."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
import torch
from torchvision import datasets

from clvr_bench import ClvrBenchError, ResidentSplit
from clvr_bench.data import prepare
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind
from clvr_plugins.datasets.stl10 import Stl10
from tests.plugins.datasets.originals import noise, pack, served, write_stl10


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_stl10(tmp_path, monkeypatch)
    return tmp_path


def pixels_of(split: ResidentSplit) -> torch.Tensor:
    return split.images(torch.arange(len(split))).pixels


def test_it_is_registered_as_stl10(plugins: Plugins, root: Path) -> None:
    assert isinstance(plugins.registry.get(Kind.DATASET, "stl10").factory(root), Stl10)


@pytest.mark.parametrize(("split", "count", "seed"), [("train", 40, 20), ("test", 20, 21), ("unlabelled", 15, 22)])
def test_pictures_stand_upright(root: Path, split: str, count: int, seed: int) -> None:
    pixels = pixels_of(getattr(Stl10(root), split))
    assert torch.equal(pixels, torch.from_numpy(noise(count, 96, seed)))
    assert pixels.dtype == torch.uint8
    assert pixels.is_contiguous()


def test_labels_start_at_zero_and_unlabelled_pictures_have_none(root: Path) -> None:
    data = Stl10(root)
    assert data.train.labels.tolist() == [*range(10)] * 4
    assert data.test.labels.tolist() == [*range(10)] * 2
    assert data.unlabelled.labels.tolist() == [-1] * 15
    assert data.unlabelled.labels.dtype == data.train.labels.dtype == torch.int64


def test_a_smaller_image_size_leaves_the_stored_pictures_alone(root: Path) -> None:
    small, whole = Stl10(root, image_size=64), Stl10(root)
    assert (small.image_size, whole.image_size) == (64, 96)
    assert small.train.fingerprint == whole.train.fingerprint


@pytest.mark.parametrize("size", [0, -96])
def test_a_size_that_is_not_positive_is_refused(root: Path, size: int) -> None:
    with pytest.raises(ClvrBenchError, match=rf"^dataset stl10: image_size must be positive, got {size}\.$"):
        Stl10(root, image_size=size)


def test_reading_the_unlabelled_pictures_takes_their_own_size_and_no_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stl10(tmp_path, monkeypatch, unlabelled=40)
    data = Stl10(tmp_path)
    tracemalloc.start()  # numpy tells it what it allocates
    try:
        split = data.unlabelled
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * len(split) * 3 * 96 * 96


def test_unlabelled_pictures_join_pretraining_alone(root: Path) -> None:
    data = prepare("stl10", Stl10(root), torch.device("cpu"))
    assert (len(data.train), len(data.val), len(data.test)) == (30, 10, 20)
    assert data.facts("none").train_size == 45
    assert data.facts("fine").train_size == 30


@pytest.mark.parametrize("name", ["train_X.bin", "train_y.bin", "unlabeled_X.bin", "test_X.bin", "test_y.bin"])
def test_a_file_with_another_checksum_is_refused_by_name(root: Path, name: str) -> None:
    path = root / "stl10_binary" / name
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    with pytest.raises(ClvrBenchError, match=rf"^dataset stl10: \S*{name} is damaged or was changed: its MD5 is "):
        Stl10(root)


def test_the_originals_checksums_refuse_other_files(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        write_stl10(tmp_path, patch)
        Stl10(tmp_path)
    with pytest.raises(ClvrBenchError, match="the published file's 918c2871b30a85fa023e0c44e0bee87f"):
        Stl10(tmp_path)


def test_a_missing_file_is_named_with_what_to_do(root: Path) -> None:
    (root / "stl10_binary" / "unlabeled_X.bin").unlink()
    with pytest.raises(
        ClvrBenchError, match=r"unlabeled_X\.bin is missing\. Add --download to fetch stl10_binary\.tar"
    ):
        Stl10(root)


def test_without_a_root_it_asks_for_one() -> None:
    with pytest.raises(ClvrBenchError, match=r"^dataset stl10: it needs the folder that holds 'stl10_binary'\."):
        Stl10(None)


def test_a_file_that_vanishes_after_the_check_is_one_line(root: Path) -> None:
    data = Stl10(root)
    (root / "stl10_binary" / "test_y.bin").unlink()
    with pytest.raises(ClvrBenchError, match=r"^dataset stl10: the files in \S+ cannot be read \(.+\)\.$"):
        _ = data.test


def test_download_fetches_torchvisions_archive(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = datasets.STL10
    with served(root) as address:
        monkeypatch.setattr(reader, "tgz_md5", pack(root / reader.filename, root, [reader.base_folder], "w:gz"))
        monkeypatch.setattr(reader, "url", f"{address}/{reader.filename}")
        Stl10.download(tmp_path / "fetched")
    assert Stl10(tmp_path / "fetched").unlabelled.fingerprint == Stl10(root).unlabelled.fingerprint
