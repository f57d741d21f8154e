"""ImageNet, on a small tree and small archives in the format of the originals."""

from __future__ import annotations

import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torchvision.datasets import imagenet

from clvr_bench import ClvrBenchError
from clvr_bench.data import prepare
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind
from clvr_bench.toolbox import PictureFiles
from clvr_plugins.datasets.imagenet import Ilsvrc2012, unique_names
from tests.plugins.datasets.originals import WORDNET, pack, save_jpeg, val_name, val_truth, write_imagenet

DEVKIT, TRAIN, VAL = "ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders and ``meta.bin``, as torchvision leaves them."""
    write_imagenet(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture
def archives(root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same pictures in the three archives, as ImageNet gives them out."""
    folder, work = tmp_path_factory.mktemp("archives"), tmp_path_factory.mktemp("work")
    for wordnet_id in WORDNET:
        pictures = [path.name for path in (root / "train" / wordnet_id).iterdir()]
        pack(work / f"{wordnet_id}.tar", root / "train" / wordnet_id, pictures)
    truth = val_truth(2)
    for position, wordnet_id in enumerate(truth):
        shutil.copy(root / "val" / wordnet_id / val_name(position), work)
    write_devkit(work / "ILSVRC2012_devkit_t12" / "data", truth)
    sums = {
        "train": pack(folder / TRAIN, work, [f"{wordnet_id}.tar" for wordnet_id in WORDNET]),
        "val": pack(folder / VAL, work, [val_name(position) for position in range(len(truth))]),
        "devkit": pack(folder / DEVKIT, work, ["ILSVRC2012_devkit_t12"], "w:gz"),
    }
    for kind, md5 in sums.items():
        monkeypatch.setitem(imagenet.ARCHIVE_META, kind, (imagenet.ARCHIVE_META[kind][0], md5))
    return folder


def write_devkit(folder: Path, truth: list[str]) -> None:
    """Write the classes as Matlab's structures, two groups of classes after the classes, and the truth of val."""
    kinds = [(name, object) for name in ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children")]
    rows: list[tuple[Any, ...]] = [
        (number, wordnet_id, ", ".join(words), "what it is", 0, [])
        for number, (wordnet_id, words) in enumerate(WORDNET.items(), 1)
    ]
    rows += [
        (6, "n00001740", "entity", "what is", 2, [1, 7]),
        (7, "n00001930", "thing", "what is there", 4, [2, 3, 4, 5]),
    ]
    folder.mkdir(parents=True)
    savemat(folder / "meta.mat", {"synsets": np.array(rows, dtype=kinds)[:, None]})
    numbers = {wordnet_id: number for number, wordnet_id in enumerate(WORDNET, 1)}
    lines = [f"{numbers[wordnet_id]}\n" for wordnet_id in truth]
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(lines))


def read(root: Path | None, **options: Any) -> None:
    data = Ilsvrc2012(root, **options)
    _ = data.train, data.test


def refused(root: Path | None, message: str, **options: Any) -> None:
    with pytest.raises(ClvrBenchError, match=f"^dataset imagenet: {message}") as caught:
        read(root, **options)
    assert "\n" not in str(caught.value)


def test_it_is_registered_as_imagenet(plugins: Plugins, root: Path) -> None:
    assert isinstance(plugins.registry.get(Kind.DATASET, "imagenet").factory(root), Ilsvrc2012)


def test_labels_follow_the_wordnet_identifiers_and_test_is_val(root: Path) -> None:
    data = Ilsvrc2012(root)
    assert data.train.labels.tolist() == [label for label in range(5) for _ in range(6)]
    assert data.test.labels.tolist() == [label for label in range(5) for _ in range(2)]
    assert isinstance(data.test, PictureFiles)
    assert {Path(path).parent.parent.name for path in data.test.paths} == {"val"}
    for path, label in zip(data.test.paths, data.test.labels.tolist(), strict=True):
        assert Path(path).parent.name == sorted(WORDNET)[label]


def test_classes_have_names_for_people_no_two_alike(root: Path) -> None:
    expected = ("tench", "crane (n02012849)", "crane (n03126707)", "maillot", "maillot, tank suit")
    assert Ilsvrc2012(root).class_names == expected


def test_names_are_in_the_order_of_the_identifiers() -> None:
    assert unique_names({"n2": ["dog"], "n1": ["cat", "Felis catus"]}) == ("cat", "dog")


@pytest.mark.parametrize(("image_size", "side"), [(224, 256), (96, 110), (28, 32)])
def test_pictures_are_stored_with_the_margin_of_the_fields_crop(root: Path, image_size: int, side: int) -> None:
    data = Ilsvrc2012(root, image_size=image_size)
    assert (data.image_size, data.title) == (image_size, "ImageNet")
    assert data.train.shorter_side == data.test.shorter_side == side


def test_longer_pictures_are_shrunk(root: Path) -> None:
    assert Ilsvrc2012(root, image_size=28).train.images(torch.tensor([0])).sizes.tolist() == [[32, 45]]


def test_it_can_be_prepared_for_a_sweep(root: Path) -> None:
    data = prepare("imagenet", Ilsvrc2012(root, image_size=28), torch.device("cpu"))
    assert (data.title, data.num_classes, len(data.train), len(data.val), len(data.test)) == ("ImageNet", 5, 25, 5, 10)


def test_the_archives_give_what_the_folders_give(root: Path, archives: Path) -> None:
    made = Ilsvrc2012(archives)
    ready = Ilsvrc2012(root)
    assert made.class_names == ready.class_names
    assert made.train.fingerprint == ready.train.fingerprint
    assert made.test.fingerprint == ready.test.fingerprint
    assert sorted(path.name for path in archives.iterdir()) == sorted([DEVKIT, TRAIN, VAL, "meta.bin", "train", "val"])


def test_archives_are_not_read_again(archives: Path) -> None:
    before = Ilsvrc2012(archives).test.fingerprint
    for name in (DEVKIT, TRAIN, VAL):
        (archives / name).unlink()
    assert Ilsvrc2012(archives).test.fingerprint == before


@pytest.mark.parametrize("name", [DEVKIT, TRAIN, VAL])
def test_an_archive_with_another_checksum_is_refused_by_name(archives: Path, name: str) -> None:
    (archives / name).write_bytes((archives / name).read_bytes() + b"?")
    refused(archives, rf"\S+{re.escape(name)} is damaged: its MD5 is not [0-9a-f]{{32}}\. Fetch it again\.$")
    assert not list(archives.glob("*.partial"))


@pytest.mark.parametrize(("name", "wanted"), [(DEVKIT, "meta.bin"), (TRAIN, "train"), (VAL, "val")])
def test_what_is_missing_is_named_with_where_to_get_it(archives: Path, name: str, wanted: str) -> None:
    (archives / name).unlink()
    refused(
        archives, rf"\S+ holds neither '{wanted}' nor {re.escape(name)}\. .* are given out on ImageNet's own site to"
    )


def test_an_extraction_that_fails_leaves_no_part_of_it(archives: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "extractall", full)
    Path(archives / "meta.bin").write_bytes(b"")
    torch.save((WORDNET, val_truth(2)), archives / "meta.bin")
    refused(archives, rf"\S+{TRAIN} could not be extracted \(\[Errno 28\] No space left on device\)\.$")
    assert sorted(path.name for path in archives.iterdir()) == sorted([DEVKIT, TRAIN, VAL, "meta.bin"])


def test_what_a_killed_extraction_left_is_not_taken_for_the_data(archives: Path) -> None:
    (archives / "train.partial").mkdir()
    refused(archives, rf"\S+train\.partial is there already: another process is extracting {TRAIN}, or one was killed")
    assert (archives / "train.partial").is_dir()


@pytest.mark.parametrize("content", [b"", b"no meta file", None])
def test_a_damaged_meta_file_is_named(root: Path, content: bytes | None) -> None:
    path = root / "meta.bin"
    path.write_bytes(path.read_bytes()[:200] if content is None else content)
    refused(root, rf"{path} is not what torchvision writes \(.*\)\. Remove it and put {re.escape(DEVKIT)} into ")


@pytest.mark.parametrize("content", [({}, []), ({"n1": ("cat",)}, ["n2"]), ["n1"], ({"n1": ()}, [])])
def test_a_meta_file_of_another_content_is_named(root: Path, content: object) -> None:
    torch.save(content, root / "meta.bin")
    refused(root, rf"{root / 'meta.bin'} is not what torchvision writes \(")


@pytest.mark.parametrize(("kind", "archive"), [("train", TRAIN), ("val", VAL)])
def test_missing_classes_are_counted_and_named(root: Path, kind: str, archive: str) -> None:
    shutil.rmtree(root / kind / "n03126707")
    shutil.rmtree(root / kind / "n02012849")
    refused(
        root,
        rf"\S+{kind} lacks 2 of 5 classes, such as n02012849\. To have it made anew, remove it and put {archive} into "
        r"\S+\. For a part of ImageNet use --dataset folder\.$",
    )


def test_a_folder_that_is_no_class_is_named(root: Path) -> None:
    (root / "train" / "n99999999").mkdir()
    refused(root, r"\S+train/n99999999 is no class of \S+meta\.bin\. Move it elsewhere\.$")


def test_a_class_without_pictures_is_named(root: Path) -> None:
    for path in (root / "train" / "n02012849").iterdir():
        path.unlink()
    refused(root, r"\S+train cannot be read \(Found no valid file for the classes n02012849\.")


def test_missing_training_pictures_are_counted_and_passed_over_on_request(root: Path) -> None:
    next((root / "train" / "n02012849").iterdir()).unlink()
    refused(
        root, r"\S+train holds 29 pictures instead of 30\. To have it made anew, .* --set imagenet\.unreadable=0\.01$"
    )
    refused(root, r"\S+train holds 29 pictures", unreadable=0.03)
    data = Ilsvrc2012(root, unreadable=0.04)
    assert len(data.train) == 29
    assert data.train.unreadable == data.test.unreadable == 0.04


def test_surplus_training_pictures_are_refused_whatever_is_passed_over(root: Path) -> None:
    save_jpeg(root / "train" / "n02012849" / "more.JPEG", 7)
    refused(root, r"\S+train holds 31 pictures instead of 30\.", unreadable=0.5)


def test_missing_test_pictures_are_refused_whatever_is_passed_over(root: Path) -> None:
    next((root / "val" / "n02012849").iterdir()).unlink()
    refused(
        root, rf"\S+val holds 9 pictures instead of 10\. To have it made anew, remove it and put {VAL}", unreadable=0.5
    )


def test_test_pictures_in_a_wrong_class_are_refused_and_named(root: Path) -> None:
    first, second = ((root / "val" / truth / val_name(n), val_name(n)) for n, truth in enumerate(val_truth(2)[:2]))
    first[0].rename(second[0].parent / first[1])
    second[0].rename(first[0].parent / second[1])
    refused(root, rf"2 pictures of val lie in another class than meta\.bin gives them, such as \S+{first[1]}\. ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, r"image_size must be positive, got 0\."),
        ({"unreadable": 1.0}, r"unreadable must be from 0 to below 1, got 1\.0\."),
        ({"unreadable": -0.1}, r"unreadable must be from 0 to below 1, got -0\.1\."),
    ],
)
def test_options_out_of_range_are_refused(root: Path, options: dict[str, Any], message: str) -> None:
    refused(root, message, **options)


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    refused(None, rf"it needs a folder\. {re.escape(TRAIN)}, {re.escape(VAL)} and {re.escape(DEVKIT)} are given out on")
    refused(tmp_path / "nowhere", r"\S+nowhere is no folder\. ")


def test_it_cannot_be_downloaded(tmp_path: Path) -> None:
    with pytest.raises(
        ClvrBenchError, match=r"^dataset imagenet: --download cannot fetch it\. ILSVRC2012_img_train\.tar"
    ):
        Ilsvrc2012.download(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_run_scores_val(root: Path, tiny_run: Callable[..., Any]) -> None:
    data = ["--dataset", "imagenet", "--data-root", root, "--set", "imagenet.image_size=16", "--batch-size", 5]
    answer = tiny_run(*data, "--pretext-task", "random_init", "--epochs", 1)
    assert answer.code == 0, answer.out + answer.err
