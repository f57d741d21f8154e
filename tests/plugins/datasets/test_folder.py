from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clvr_bench import ClvrBenchError, Images, Split
from clvr_bench.combinations import Choice
from clvr_bench.data import Access, Data, load, prepare
from clvr_bench.options import resolve_options
from clvr_bench.plugins import Plugins
from clvr_bench.registry import Kind
from clvr_plugins.datasets.folder import ClassFolders

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def picture(height: int = 8, width: int = 8, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8))


def save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes with two training pictures and one test picture each, all of 8 px."""
    folder = tmp_path / "pets"
    for seed, name in enumerate(("cat", "dog")):
        for number in range(2):
            save(picture(seed=10 * seed + number), folder / "train" / name / f"{number}.png")
        save(picture(seed=10 * seed + 9), folder / "test" / name / "0.png")
    return folder


def stored(split: Split) -> Images:
    return split.images(torch.arange(len(split)))


def channels_first(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


def loaded(plugins: Plugins, root: Path, **options: float) -> Data:
    entry = plugins.registry.get(Kind.DATASET, "folder")
    choice = Choice(entry, resolve_options(entry.options, options, "folder"))
    return load(choice, Access(root=root, workers=0), torch.device("cpu"))


def refused(root: Path | None, message: str, **options: int) -> None:
    with pytest.raises(ClvrBenchError, match=f"^dataset folder: {message}") as caught:
        _ = ClassFolders(root, **options).train
    assert "\n" not in str(caught.value)


def test_it_is_registered_as_folder(plugins: Plugins, root: Path) -> None:
    assert isinstance(plugins.registry.get(Kind.DATASET, "folder").factory(root), ClassFolders)


@pytest.mark.parametrize("test_folder", ["test", "val"])
def test_train_and_test_or_val_are_the_splits(root: Path, test_folder: str) -> None:
    (root / "test").rename(root / test_folder)
    data = ClassFolders(root)
    assert data.train.labels.tolist() == [0, 0, 1, 1]
    assert data.test.labels.tolist() == [0, 1]


def test_test_is_preferred_to_val(root: Path) -> None:
    shutil.copytree(root / "train", root / "val")
    assert len(ClassFolders(root).test) == 2


def test_pixels_are_those_of_the_files(root: Path) -> None:
    images = stored(ClassFolders(root).train)
    expected = torch.stack([channels_first(picture(seed=seed)) for seed in (0, 1, 10, 11)])
    assert images.pixels.dtype == torch.uint8
    assert torch.equal(images.pixels, expected)
    assert images.sizes.tolist() == [[8, 8]] * 4


def test_classes_are_in_the_order_of_their_names(root: Path) -> None:
    for split in ("train", "test"):
        shutil.copytree(root / split / "dog", root / split / "ant")
    data = ClassFolders(root)
    assert data.class_names == ("ant", "cat", "dog")
    assert torch.equal(stored(data.test).pixels[0], stored(data.test).pixels[2])


def test_a_class_that_test_lacks_keeps_its_number(root: Path) -> None:
    for name in ("ant", "eel"):
        shutil.copytree(root / "train" / "dog", root / "train" / name)
    assert ClassFolders(root).test.labels.tolist() == [1, 2]


def test_pictures_in_nested_folders_belong_to_the_class(root: Path) -> None:
    save(picture(seed=5), root / "train" / "cat" / "persian" / "young" / "5.png")
    assert ClassFolders(root).train.labels.tolist() == [0, 0, 0, 1, 1]


def test_hidden_files_and_folders_and_other_files_are_passed_over(root: Path) -> None:
    save(picture(), root / "train" / "cat" / "._0.png")
    (root / "train" / "cat" / "notes.txt").write_text("no picture")
    (root / "train" / ".cache").mkdir()
    data = ClassFolders(root)
    assert data.class_names == ("cat", "dog")
    assert len(data.train) == 4


def test_suffixes_may_be_capital(root: Path) -> None:
    save(picture(seed=7), root / "train" / "dog" / "IMG_7.PNG")
    assert len(ClassFolders(root).train) == 5


def test_grey_becomes_rgb(root: Path) -> None:
    values = np.arange(64, dtype=np.uint8).reshape(8, 8)
    save(Image.fromarray(values), root / "train" / "cat" / "0.png")
    pixels = stored(ClassFolders(root).train).pixels[0]
    assert torch.equal(pixels, torch.from_numpy(values).expand(3, 8, 8))


def test_white_shows_through_transparent_pictures(root: Path) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 51))
    save(image, root / "train" / "cat" / "0.png")
    assert (stored(ClassFolders(root).train).pixels[0] == 204).all()


def test_palette_becomes_rgb(root: Path) -> None:
    image = Image.new("P", (8, 8))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putpixel((1, 0), 1)
    image.putpixel((0, 1), 2)
    save(image, root / "train" / "cat" / "0.png")
    pixels = stored(ClassFolders(root).train).pixels[0]
    assert [tuple(pixels[:, row, column].tolist()) for row, column in ((0, 0), (0, 1), (1, 0))] == [RED, GREEN, BLUE]


def test_equal_sizes_need_no_option(root: Path) -> None:
    assert ClassFolders(root).image_size == 8


def test_smaller_pictures_are_padded_at_the_right_and_at_the_bottom(root: Path) -> None:
    small = picture(height=5, width=3, seed=4)
    save(small, root / "train" / "cat" / "0.png")
    images = stored(ClassFolders(root, image_size=8).train)
    assert images.pixels.shape == (4, 3, 8, 8)
    assert images.sizes.tolist() == [[5, 3], [8, 8], [8, 8], [8, 8]]
    assert torch.equal(images.pixels[0, :, :5, :3], channels_first(small))
    assert not images.pixels[0, :, 5:].any()
    assert not images.pixels[0, :, :, 3:].any()


@pytest.mark.parametrize(
    ("height", "width", "shrunk"), [(12, 30, [6, 15]), (30, 12, [15, 6]), (12, 12, [6, 6]), (6, 40, [6, 40])]
)
def test_the_shorter_side_is_shrunk_to_the_image_size(root: Path, height: int, width: int, shrunk: list[int]) -> None:
    save(picture(height, width), root / "train" / "cat" / "0.png")
    data = ClassFolders(root, image_size=6)
    assert data.image_size == 6
    assert stored(data.train).sizes.tolist() == [shrunk, [6, 6], [6, 6], [6, 6]]


def test_small_pictures_are_not_enlarged(root: Path) -> None:
    data = ClassFolders(root, image_size=20)
    assert data.image_size == 20
    assert torch.equal(stored(data.train).pixels[0], channels_first(picture(seed=0)))


def test_shrinking_keeps_what_is_where(root: Path) -> None:
    image = Image.new("RGB", (32, 16), RED)
    image.paste(BLUE, (16, 0, 32, 16))
    save(image, root / "train" / "cat" / "0.png")
    pixels = stored(ClassFolders(root, image_size=8).train).pixels[0]
    assert tuple(pixels[:, 4, 1].tolist()) == RED
    assert tuple(pixels[:, 4, 14].tolist()) == BLUE


def test_the_title_is_the_folders_name_or_the_option(root: Path) -> None:
    assert ClassFolders(root).title == "pets"
    assert ClassFolders(root, title="Oxford pets").title == "Oxford pets"


def test_a_relative_root_still_has_a_title(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    assert ClassFolders(Path()).title == "pets"


def test_equal_content_has_an_equal_fingerprint_wherever_it_lies(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / "copied"
    shutil.copytree(root, copy)
    first, second = ClassFolders(root), ClassFolders(copy)
    assert first.train.fingerprint == second.train.fingerprint
    assert first.test.fingerprint == second.test.fingerprint


def test_one_changed_pixel_changes_the_fingerprint(root: Path) -> None:
    before = ClassFolders(root)
    before_train, before_test = before.train.fingerprint, before.test.fingerprint
    image = picture(seed=0)
    red, green, blue = image.getpixel((7, 7))
    image.putpixel((7, 7), (red, green, blue ^ 1))
    save(image, root / "train" / "cat" / "0.png")
    after = ClassFolders(root)
    assert after.train.fingerprint != before_train
    assert after.test.fingerprint == before_test


def test_a_picture_of_another_class_changes_the_fingerprint(root: Path) -> None:
    before = ClassFolders(root).train.fingerprint
    (root / "train" / "cat" / "1.png").rename(root / "train" / "dog" / "!.png")  # sorts where it was
    after = ClassFolders(root)
    assert after.train.labels.tolist() == [0, 1, 1, 1]
    assert after.train.fingerprint != before


def test_it_can_be_prepared_for_a_sweep(root: Path) -> None:
    data = prepare("folder", ClassFolders(root), torch.device("cpu"))
    assert (data.title, data.num_classes) == ("pets", 2)
    assert (len(data.train), len(data.val), len(data.test)) == (2, 2, 2)


def test_without_a_root_it_asks_for_one() -> None:
    refused(None, r"it needs a folder of pictures\. Name it with --data-root DIR\.")


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    refused(missing, rf"{re.escape(str(missing))} is no folder\. Expected ROOT/train/CLASS/")


def test_a_missing_train_folder_is_named(root: Path) -> None:
    (root / "train").rename(root / "training")
    refused(root, rf"{re.escape(str(root))} has no folder 'train'\. Expected ROOT/train/CLASS/")


def test_a_missing_test_folder_is_named(root: Path) -> None:
    shutil.rmtree(root / "test")
    refused(root, rf"{re.escape(str(root))} has no folder 'test or val'\. Expected ROOT/train/CLASS/")


@pytest.mark.parametrize("split", ["train", "test"])
def test_one_class_is_refused(root: Path, split: str) -> None:
    shutil.rmtree(root / split / "dog")
    refused(root, rf".*{split} has only one class folder \('cat'\); at least two are needed\.")


def test_no_class_folders_are_refused(root: Path) -> None:
    shutil.rmtree(root / "train")
    save(picture(), root / "train" / "0.png")
    refused(root, r".*train has no class folders; at least two are needed\.")


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_class_folder_without_pictures_is_named(root: Path, split: str) -> None:
    for path in (root / split / "dog").iterdir():
        path.unlink()
    (root / split / "dog" / "notes.txt").touch()
    refused(root, rf".*{split}/dog holds no pictures \(\.bmp, \.gif, \.jpeg, ")


def test_a_class_that_train_lacks_is_named(root: Path) -> None:
    shutil.copytree(root / "test" / "dog", root / "test" / "eel")
    refused(root, r".*test/eel is a class that .*train lacks\.")


DAMAGES = [lambda content: b"no picture", lambda content: content[:60], lambda content: b""]


@pytest.mark.parametrize("options", [{}, {"image_size": 8}])
@pytest.mark.parametrize("damage", DAMAGES)
def test_an_unreadable_picture_is_named(
    plugins: Plugins, root: Path, options: dict[str, int], damage: Callable[[bytes], bytes]
) -> None:
    path = root / "train" / "dog" / "1.png"
    path.write_bytes(damage(path.read_bytes()))
    message = (
        r"^dataset folder: 1 of 4 train pictures cannot be decoded, where 1% may be: train/dog/1\.png \(.+\)\. All "
    )
    with pytest.raises(ClvrBenchError, match=message) as caught:
        loaded(plugins, root, **options)
    assert str(caught.value).endswith("Mend or remove them, or allow more: --set folder.unreadable=0.25")


@pytest.mark.parametrize("damage", DAMAGES)
def test_unreadable_pictures_are_left_out_up_to_the_stated_share(
    plugins: Plugins, root: Path, damage: Callable[[bytes], bytes]
) -> None:
    save(picture(seed=20), root / "train" / "dog" / "2.png")
    whole = loaded(plugins, root)
    path = root / "train" / "dog" / "1.png"
    kept = path.read_bytes()
    path.write_bytes(damage(kept))
    data = loaded(plugins, root, unreadable=0.2)
    assert len(data.train) + len(data.val) == 4
    assert data.notes == ("1 of 5 train pictures cannot be decoded and are left out",)
    path.unlink()
    without = loaded(plugins, root)
    assert data.fingerprint == without.fingerprint != whole.fingerprint
    assert without.notes == ()


@pytest.mark.parametrize(("option", "value"), [("unreadable", 1.5), ("unreadable", -0.1), ("image_size", -1)])
def test_options_outside_their_range_are_refused(root: Path, option: str, value: float) -> None:
    with pytest.raises(ClvrBenchError, match=rf"^dataset folder: {option} must be .*, got {value}\.$"):
        ClassFolders(root, **{option: value})


@pytest.mark.parametrize("name", ["unlabelled", "unlabeled"])
def test_pictures_without_a_class_are_for_pretraining_alone(plugins: Plugins, root: Path, name: str) -> None:
    save(picture(seed=30), root / name / "0.png")
    save(picture(seed=31), root / name / "deep" / "below" / "1.png")
    data = ClassFolders(root)
    assert data.unlabelled is not None
    assert data.unlabelled.labels.tolist() == [-1, -1]
    expected = torch.stack([channels_first(picture(seed=seed)) for seed in (30, 31)])
    assert torch.equal(stored(data.unlabelled).pixels, expected)
    everything = loaded(plugins, root).pretraining("none")
    assert everything.labels.tolist() == [0, 1, -1, -1]
    assert torch.equal(everything.images(torch.tensor([2, 3])).pixels, expected)


def test_without_such_a_folder_there_are_none(root: Path) -> None:
    assert ClassFolders(root).unlabelled is None


def test_an_empty_folder_of_unlabelled_pictures_is_named(root: Path) -> None:
    (root / "unlabelled").mkdir()
    with pytest.raises(ClvrBenchError, match=r"^dataset folder: .*unlabelled holds no pictures"):
        _ = ClassFolders(root, image_size=8).unlabelled


def test_links_to_pictures_and_to_folders_are_followed(root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    save(picture(seed=40), elsewhere / "more" / "40.png")
    (root / "train" / "cat" / "linked.png").symlink_to(elsewhere / "more" / "40.png")
    (root / "train" / "dog" / "more").symlink_to(elsewhere / "more", target_is_directory=True)
    for split in ("train", "test"):
        (root / split / "eel").symlink_to(elsewhere, target_is_directory=True)
    data = ClassFolders(root)
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert data.test.labels.tolist() == [0, 1, 2]
    assert torch.equal(stored(data.train).pixels[6], channels_first(picture(seed=40)))


def test_a_link_back_to_where_it_lies_is_not_followed_again(root: Path) -> None:
    save(picture(seed=41), root / "train" / "cat" / "below" / "41.png")
    (root / "train" / "cat" / "below" / "loop").symlink_to(root / "train" / "cat", target_is_directory=True)
    (root / "train" / "cat" / "self").symlink_to("self")
    assert ClassFolders(root).train.labels.tolist() == [0, 0, 0, 1, 1]


def test_a_broken_link_is_a_picture_that_cannot_be_decoded(plugins: Plugins, root: Path) -> None:
    (root / "train" / "dog" / "gone.png").symlink_to(root / "nowhere.png")
    with pytest.raises(ClvrBenchError, match=r"train/dog/gone\.png \(it is a broken link\)"):
        loaded(plugins, root)


def test_all_formats_and_kinds_of_pictures_may_be_mixed(plugins: Plugins, tmp_path: Path) -> None:
    kinds = {"0.jpg": "RGB", "1.webp": "RGBA", "2.bmp": "L", "3.gif": "P", "4.tif": "CMYK", "5.png": "LA", "6.pbm": "1"}
    for number, (file, mode) in enumerate(kinds.items()):
        for split in ("train", "test"):
            save(picture(10 + number, 12, seed=number).convert(mode), tmp_path / split / f"class{number % 2}" / file)
    data = loaded(plugins, tmp_path, image_size=8)
    assert len(data.train) + len(data.val) == len(data.test) == 7
    assert (data.test.images(torch.arange(7)).sizes.amin(1) == 8).all()
    assert data.notes == ("7 of 7 test pictures are also in train",)


@pytest.mark.parametrize(("height", "width"), [(12, 12), (12, 10)])
def test_unequal_sizes_ask_for_an_image_size(root: Path, height: int, width: int) -> None:
    save(picture(height, width), root / "test" / "cat" / "0.png")
    refused(
        root,
        rf"pictures in .*pets are not all of one square size \(8x8 to {height}x{width} px\)\. "
        r"Choose what views are made in, such as: --set folder\.image_size=64$",
    )


def test_equal_sizes_that_are_not_square_ask_for_an_image_size(root: Path) -> None:
    for path in root.rglob("*.png"):
        save(picture(height=8, width=10), path)
    refused(root, r"pictures in .*pets are not all of one square size")


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(ramp).save(tmp_path / split / name / "0.png")
    pixels = ClassFolders(tmp_path).train.images(torch.tensor([0])).pixels[0]
    assert pixels[0].flatten().tolist() == (ramp >> 8).flatten().tolist()


def test_hidden_folders_are_passed_over(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / split / name / ".checkpoints").mkdir(parents=True)
            for file in ("0.png", ".checkpoints/0-copy.png"):
                Image.new("RGB", (4, 4)).save(tmp_path / split / name / file)
    assert len(ClassFolders(tmp_path).train) == 2


def test_a_part_of_the_training_pictures_can_be_kept_and_test_stays(root: Path) -> None:
    part = ClassFolders(root, train_size=2)
    assert part.train.labels.tolist() == [0, 1]
    assert set(part.train.paths) < set(ClassFolders(root).train.paths)
    assert len(part.test) == 2


def test_more_training_pictures_than_there_are_are_refused(root: Path) -> None:
    refused(root, "train_size must be from 1 to 4, or 0 for all of them, got 5", train_size=5)
