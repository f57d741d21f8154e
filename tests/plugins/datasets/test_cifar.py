"""CIFAR-10 and CIFAR-100, on small files in the format of the originals."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

from clvr_bench import ClvrBenchError, ResidentSplit
from clvr_bench.data import prepare
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind
from clvr_plugins.datasets.cifar import Cifar10, Cifar100
from tests.conftest import CONTRACT_PLUGINS, Answer
from tests.plugins.datasets.originals import (
    CIFAR10_NAMES,
    COARSE,
    COARSE_OF_FINE,
    FINE,
    adopt,
    noise,
    pack,
    served,
    write_cifar10,
    write_cifar100,
    write_pickle,
)


@pytest.fixture
def root10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_cifar10(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture
def root100(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_cifar100(tmp_path, monkeypatch)
    return tmp_path


def pixels_of(split: ResidentSplit) -> torch.Tensor:
    return split.images(torch.arange(len(split))).pixels


def test_they_are_registered(plugins: Plugins, root10: Path, root100: Path) -> None:
    assert type(plugins.registry.get(Kind.DATASET, "cifar10").factory(root10)) is Cifar10
    assert type(plugins.registry.get(Kind.DATASET, "cifar100").factory(root100)) is Cifar100


def test_pictures_are_those_of_the_files_in_their_order(root10: Path) -> None:
    data = Cifar10(root10)
    expected = np.concatenate([noise(20, 32, number) for number in range(5)])
    assert torch.equal(pixels_of(data.train), torch.from_numpy(expected))
    assert torch.equal(pixels_of(data.test), torch.from_numpy(noise(20, 32, 5)))


def test_labels_and_names_are_those_of_the_files(root10: Path) -> None:
    data = Cifar10(root10)
    assert data.train.labels.tolist() == [*range(10)] * 10
    assert data.train.labels.dtype == torch.int64
    assert data.test.labels.tolist() == [*range(10)] * 2
    assert data.class_names == CIFAR10_NAMES
    assert (data.title, data.image_size, data.coarse) == ("CIFAR-10", 32, ())


def test_cifar100_has_fine_labels_and_the_coarse_classes_of_its_files(root100: Path) -> None:
    data = Cifar100(root100)
    assert torch.equal(pixels_of(data.train), torch.from_numpy(noise(120, 32, 10)))
    assert data.train.labels.tolist() == [*range(5)] * 24
    assert (data.title, data.class_names) == ("CIFAR-100", FINE)
    assert (data.coarse_names, data.coarse) == (tuple(COARSE), COARSE_OF_FINE)


def test_a_task_on_coarse_labels_runs_on_cifar100(cli: Callable[..., Answer], root100: Path) -> None:
    run = ["--dataset", "cifar100", "--data-root", root100, "--encoder", "tiny", "--batch-size", 20, "--epochs", 1]
    answer = cli(
        "--plugins-dir", CONTRACT_PLUGINS, "run", "--pretext-task", "weakly_supervised", *run, "--device", "cpu"
    )
    assert answer.code == 0, answer.out + answer.err
    assert "CIFAR-100" in answer.out


def test_a_class_in_two_coarse_classes_is_refused(root100: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = {"fine_labels": [0, 0, 1, 2, 3, 4], "coarse_labels": [0, 1, 0, 0, 0, 0], "data": None, "filenames": []}
    write_pickle(root100 / "cifar-100-python" / "test", batch)
    adopt(datasets.CIFAR100, root100, monkeypatch)
    with pytest.raises(ClvrBenchError, match=r"^dataset cifar100: the test file gives some class no coarse class"):
        Cifar100(root100)


@pytest.mark.parametrize("filename", ["data_batch_1", "data_batch_5", "test_batch", "batches.meta"])
def test_a_file_with_another_checksum_is_refused_by_name(root10: Path, filename: str) -> None:
    path = root10 / "cifar-10-batches-py" / filename
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(
        ClvrBenchError, match=rf"^dataset cifar10: \S*{filename} is damaged or was changed: its MD5 is "
    ):
        Cifar10(root10)


def test_the_originals_checksums_refuse_other_files(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        write_cifar100(tmp_path, patch)
        Cifar100(tmp_path)
    with pytest.raises(ClvrBenchError, match="the published file's 16019d7e3df5f24257cddd939b257f8d"):
        Cifar100(tmp_path)


def test_a_missing_file_is_named_with_what_to_do(root100: Path) -> None:
    (root100 / "cifar-100-python" / "train").unlink()
    with pytest.raises(
        ClvrBenchError, match=r"cifar-100-python/train is missing\. Add --download to fetch cifar-100-py"
    ):
        Cifar100(root100)


def test_without_a_root_it_asks_for_one() -> None:
    with pytest.raises(ClvrBenchError, match=r"^dataset cifar100: it needs the folder that holds 'cifar-100-python'\."):
        Cifar100(None)


def test_a_file_that_vanishes_after_the_check_is_one_line(root10: Path) -> None:
    data = Cifar10(root10)
    (root10 / "cifar-10-batches-py" / "data_batch_2").unlink()
    with pytest.raises(ClvrBenchError, match=r"^dataset cifar10: the files in \S+ cannot be read \(.+\)\.$"):
        _ = data.train


@pytest.mark.parametrize("copy", [1, 0])
def test_a_numpy_that_dislikes_old_pickles_is_not_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copy: int
) -> None:
    """numpy 2.4.0 to 2.4.4 warn of the originals, copy = 1; later ones only of other numbers, such as 0."""
    write_cifar10(tmp_path, monkeypatch, copy=copy)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(Cifar10(tmp_path).train) == 100


@pytest.fixture
def published(root100: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """CIFAR-100's files, packed and served where torchvision now looks for them."""
    reader = datasets.CIFAR100
    with served(root100) as address:
        monkeypatch.setattr(reader, "tgz_md5", pack(root100 / reader.filename, root100, [reader.base_folder], "w:gz"))
        monkeypatch.setattr(reader, "url", f"{address}/{reader.filename}")
        yield root100


def test_download_fetches_torchvisions_archive(published: Path, tmp_path: Path) -> None:
    Cifar100.download(tmp_path / "fetched")
    assert Cifar100(tmp_path / "fetched").train.fingerprint == Cifar100(published).train.fingerprint


@pytest.mark.usefixtures("published")
def test_a_run_downloads_only_when_told_to(cli: Callable[..., Answer], tmp_path: Path) -> None:
    run = ["--dataset", "cifar100", "--data-root", tmp_path / "new", "--encoder", "tiny", "--batch-size", 20]
    command = ["--plugins-dir", CONTRACT_PLUGINS, "run", "--pretext-task", "random_init", *run, "--device", "cpu"]
    refused = cli(*command)
    assert refused.code == 2
    assert "Add --download to fetch cifar-100-python.tar.gz" in refused.err
    assert not (tmp_path / "new").exists()
    assert cli(*command, "--download").code == 0
    assert cli(*command).code == 0


def test_it_can_be_prepared_for_a_sweep(root10: Path) -> None:
    data = prepare("cifar10", Cifar10(root10), torch.device("cpu"))
    assert (data.title, data.num_classes) == ("CIFAR-10", 10)
    assert (len(data.train), len(data.val), len(data.test), data.unlabelled) == (90, 10, 20, None)


def test_a_part_of_the_training_pictures_can_be_kept_and_test_stays(root10: Path, root100: Path) -> None:
    for dataset, root in ((Cifar10, root10), (Cifar100, root100)):
        whole, part = dataset(root), dataset(root, train_size=50)
        kept, everything = pixels_of(part.train), pixels_of(whole.train)
        assert 0 < len(kept) < len(everything)
        assert all((everything == picture).flatten(1).all(1).any() for picture in kept)
        assert torch.equal(pixels_of(part.test), pixels_of(whole.test))


def test_more_training_pictures_than_there_are_are_refused(root10: Path) -> None:
    with pytest.raises(ClvrBenchError, match=r"^dataset cifar10: train_size must be from 1 to 100, .* got 101\.$"):
        _ = Cifar10(root10, train_size=101).train
