from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from clvr_bench import ClvrBenchError
from clvr_bench.storage.picture_files import PictureFiles
from clvr_bench.toolbox import PictureFiles as Public
from tests.clvr_bench.storage.conftest import CPU, RAGGED

Make = Callable[..., PictureFiles]


def test_it_is_public() -> None:
    assert Public is PictureFiles


def test_pictures_are_decoded_and_padded_to_the_largest_of_a_batch(pictures: Make) -> None:
    images = pictures().images(torch.tensor([0, 3, 6]))
    assert images.pixels.shape == (3, 3, 11, 27)
    assert images.sizes.tolist() == [[11, 8], [8, 27], [11, 8]]
    assert not images.pixels[0, :, :, 8:].any()
    assert not images.pixels[1, :, 8:].any()


def test_a_label_is_needed_for_every_file(pictures: Make) -> None:
    with pytest.raises(ValueError, match=r"3 paths, but labels of shape \(2,\)"):
        PictureFiles(["a", "b", "c"], torch.zeros(2).long(), 8)


def test_the_fingerprint_does_not_depend_on_where_files_lie(pictures: Make, tmp_path: Path) -> None:
    split = pictures()
    shutil.copytree(tmp_path / "pictures", tmp_path / "moved")
    moved = PictureFiles([path.replace("pictures", "moved") for path in split.paths], split.labels, 8)
    assert moved.fingerprint == split.fingerprint


def test_content_order_labels_and_size_are_in_the_fingerprint(pictures: Make) -> None:
    split = pictures()
    paths, labels = split.paths, split.labels
    others = [
        PictureFiles(paths[::-1], labels, 8),
        PictureFiles(paths, 1 - labels, 8),
        PictureFiles(paths, labels, 9),
        PictureFiles(paths[:-1], labels[:-1], 8),
        PictureFiles([*paths[:-1], paths[0]], labels, 8),
    ]
    assert len({split.fingerprint, *(other.fingerprint for other in others)}) == 6


def test_a_subset_keeps_what_belongs_to_it(pictures: Make) -> None:
    split = pictures(unreadable=0.25)
    subset = split.subset(torch.tensor([4, 1]))
    assert subset.paths == (split.paths[4], split.paths[1])
    assert subset.labels.tolist() == [0, 1]
    assert (subset.shorter_side, subset.unreadable, subset.root) == (8, 0.25, split.root)


def test_joined_splits_follow_one_another(pictures: Make) -> None:
    first, second = pictures(unreadable=0.1), pictures(RAGGED[:3], folder="more", unreadable=0.3)
    joined = first.joined(second)
    assert joined.paths == first.paths + second.paths
    assert joined.labels.tolist() == first.labels.tolist() + second.labels.tolist()
    assert joined.unreadable == 0.3


def test_pictures_are_served_where_they_are_wanted(pictures: Make) -> None:
    images = pictures().to(torch.device("meta")).subset(torch.tensor([0, 1])).images(torch.tensor([0]))
    assert images.pixels.device.type == images.sizes.device.type == "meta"
    assert pictures().to(CPU).images(torch.tensor([0])).pixels.device == CPU


@pytest.mark.parametrize("damage", ["cut off", "gone"])
def test_a_picture_that_cannot_be_decoded_is_named_relative_to_the_root(pictures: Make, damage: str) -> None:
    split = pictures()
    path = Path(split.paths[3])
    path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes()[:90])
    with pytest.raises(ClvrBenchError, match=r"^3\.png: (not a readable picture|cannot be read) \(.+\)\. Mend it\.$"):
        split.images(torch.tensor([3]))


def test_sizes_come_from_headers_alone(pictures: Make) -> None:
    split = pictures()
    for path in split.paths:
        if not path.endswith(".webp"):  # which says first how long it is
            Path(path).write_bytes(Path(path).read_bytes()[:-20])
    assert list(split.header_sizes()) == [size if size != (8, 100) else (8, 64) for size in RAGGED]


def test_what_is_no_picture_has_no_size(pictures: Make) -> None:
    split = pictures()
    Path(split.paths[0]).write_bytes(b"no picture")
    Path(split.paths[1]).unlink()
    assert len(list(split.header_sizes())) == len(RAGGED) - 2
