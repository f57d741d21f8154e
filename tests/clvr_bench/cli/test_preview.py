from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from clvr_bench import DataFacts, SampleRandom
from clvr_bench.data import prepare
from clvr_bench.testing.stage import CPU, CheckPictures
from clvr_plugins.augmentations.simclr import SimCLRAugmentation
from clvr_plugins.datasets.shapes import Shapes
from tests.conftest import CONTRACT_PLUGINS, Answer

Cli = Callable[..., Answer]
Preview = Callable[..., Answer]
SMALL = ["--set", "shapes.train_size=20", "--set", "shapes.test_size=10", "--set", "shapes.image_size=16"]
PLUGIN = """
import torch
from clvr_bench import Augmentation, PretextTask, StepOutput, hookimpl

@hookimpl
def register_augmentations(register):
    register("{name}_raises", Raises, summary="Raises.", source="none", version=1)
    register("{name}_asks", Asks, summary="Has a required option.", source="none", version=1)

@hookimpl
def register_pretext_tasks(register):
    register("{name}_flips", Flips, summary="Flips.", source="none", version=1)
    register("{name}_spoils", Spoils, summary="Shows what is no picture.", source="none", version=1)

class Raises(Augmentation):
    def __init__(self, data):
        pass

    def __call__(self, images, views, random):
        raise RuntimeError("no such view")

class Asks(Raises):
    def __init__(self, data, *, strength: float):
        pass

class Flips(PretextTask):
    views = 1
    default_augmentation = "none"

    def __init__(self, encoder, data):
        super().__init__()
        self.encoder = encoder

    def forward(self, batch):
        return StepOutput(self.encoder(batch.views[0].flip(3)).mean())

    def preview(self, batch):
        return {{"mirrored": batch.views[0].flip(3)}}

class Spoils(Flips):
    def preview(self, batch):
        return {{"mirrored": batch.views[0][:, 0]}}
"""


@pytest.fixture
def preview(cli: Cli) -> Preview:
    def run(*arguments: object) -> Answer:
        return cli("preview", *arguments, *SMALL)

    return run


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    folder = tmp_path / f"of_{tmp_path.name}"  # a plugin's folder is a package, so its name is taken once a process
    folder.mkdir()
    (folder / "own.py").write_text(PLUGIN.format(name="own"))
    return folder


def decoded(path: str) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def holds(page: NDArray[np.uint8], pixels: torch.Tensor, factor: int = 12) -> bool:
    """Whether a page shows a picture (C, H, W) in [0, 1], each pixel as a square, somewhere."""
    small = (255 * pixels).round().to(torch.uint8).permute(1, 2, 0).numpy()
    wanted = small.repeat(factor, 0).repeat(factor, 1)
    height, width = wanted.shape[:2]
    corners = (page == wanted[0, 0]).all(axis=2).nonzero()
    return any(np.array_equal(page[y : y + height, x : x + width], wanted) for y, x in zip(*corners, strict=True))


def shapes_split() -> Shapes:
    return Shapes(None, train_size=20, test_size=10, image_size=16)


def test_a_png_holds_exactly_the_views_that_the_augmentation_makes(preview: Preview) -> None:
    answer = preview("augmentations", "simclr", "--images", "3,17", "--seed", 5)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == "Written: preview-augmentations.png\n"
    page, index = decoded("preview-augmentations.png"), torch.tensor([3, 17])
    images = shapes_split().train.images(index)
    random = SampleRandom.keyed(5, 0, index).scoped("augmentation")
    views = SimCLRAugmentation(DataFacts("image", train_size=20, image_size=16))(images, 4, random)
    for view in (images.pixels / 255, *views):
        assert all(holds(page, picture) for picture in view)
    assert not holds(page, views[0][0].flip(2))


def test_a_png_holds_what_the_encoder_of_a_pretext_task_sees(preview: Preview) -> None:
    assert preview("pretext-tasks", "rotation", "--output", "turns.png").code == 0
    picture = shapes_split().train.images(torch.tensor([0])).pixels[0] / 255
    assert all(holds(decoded("turns.png"), picture.rot90(quarter, dims=(1, 2))) for quarter in range(4))


def test_without_names_everything_is_drawn(preview: Preview) -> None:
    for kind in ("augmentations", "pretext-tasks"):
        answer = preview(kind, "--output", f"{kind}.svg")
        assert (answer.code, answer.err) == (0, "")
    drawn = Path("augmentations.svg").read_text()
    assert all(
        f">{text}<" in drawn for text in ("simclr", "byol", "first view", "multicrop", "local, 8 px", "fixmatch")
    )
    drawn = Path("pretext-tasks.svg").read_text()
    assert all(f">{name}<" in drawn for name in ("rotation", "mae", "cmc", "cpc_v1", "deepcluster"))
    assert ">supervised<" not in drawn


def test_chains_options_and_the_size_of_views_are_shown(preview: Preview) -> None:
    flags = ["--set", "byol.area=[0.5,1.0]", "--size", 96, "--output", "chain.svg"]
    answer = preview("augmentations", "byol+none", "simclr", *flags)
    assert answer.code == 0, answer.err
    drawn = Path("chain.svg").read_text()
    for text in (">byol + none<", "byol.area=(0.5,", ">simclr<", ">views of 96 px, seed 0<", ">arrow, image 0<"):
        assert text in drawn


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("SVG", b"<?xml"), ("pdf", b"%PDF")])
def test_the_suffix_says_what_is_written_and_folders_are_made(preview: Preview, suffix: str, start: bytes) -> None:
    assert preview("augmentations", "none", "--output", f"new/folder/drawn.{suffix}").code == 0
    assert Path(f"new/folder/drawn.{suffix}").read_bytes().startswith(start)


@pytest.fixture
def two_pictures(tmp_path: Path) -> Path:
    """A folder of one training picture a class: 24 pixels high, 32 wide; and 32 high and wide."""
    data = prepare("pictures", CheckPictures(None), CPU)
    for split in ("train", "test"):
        for number, name in enumerate(("one", "other")):
            path = tmp_path / "pictures" / split / name / "picture.png"
            path.parent.mkdir(parents=True)
            pixels = data.train.images(torch.tensor([number])).pixels[0, :, : 24 + 8 * number]
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)
    return tmp_path / "pictures"


def test_two_pictures_of_a_folder_are_enough_shown_whole_or_as_tasks_get_them(cli: Cli, two_pictures: Path) -> None:
    flags = ["--dataset", "folder", "--data-root", two_pictures, "--set", "folder.image_size=24"]
    with Image.open(two_pictures / "train" / "one" / "picture.png") as picture:
        whole = torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255
    for kind, name in (("augmentations", "multicrop"), ("pretext-tasks", "cmc")):
        answer = cli("preview", kind, name, *flags)
        assert answer.code == 0, answer.err
        page = decoded(f"preview-{kind}.png")
        assert holds(page, whole, factor=8) == (kind == "augmentations")
        assert holds(page, whole[:, :, 4:28], factor=8)


def test_a_plugins_own_are_drawn_and_what_fails_unnamed_is_left_out_with_a_warning(cli: Cli, plugin: Path) -> None:
    answer = cli("--plugins-dir", plugin, "preview", "pretext-tasks", *SMALL, "--output", "all.svg")
    assert answer.code == 0
    assert answer.err == (
        "warning: own_spoils is left out: own_spoils: preview must show pictures, but 'mirrored' is (2, 16, 16), not "
        "(B, C, H, W). Try: clvr-bench check own_spoils\n"
    )
    assert ">own_flips<" in Path("all.svg").read_text()
    answer = cli("--plugins-dir", plugin, "preview", "augmentations", *SMALL)
    assert answer.code == 0
    asks, raises = answer.err.splitlines()
    assert (
        asks
        == "warning: own_asks is left out: preview: augmentation 'own_asks': option 'strength' (float) is required."
    )
    assert raises.startswith(
        "warning: own_raises is left out: augmentation own_raises: making views raised RuntimeError"
    )


def test_an_encoder_can_be_chosen_for_its_patches(preview: Preview, cli: Cli) -> None:
    flags = ["--size", 64, "--encoder", "vit_tiny_patch16_224", "--output", "mae.svg"]
    assert preview("pretext-tasks", "mae", *flags).code == 0
    assert ">4 of 16 seen<" in Path("mae.svg").read_text()
    flags = ["--plugins-dir", CONTRACT_PLUGINS, "preview", "pretext-tasks", "mae", *SMALL, "--encoder", "tiny"]
    assert "mae: it hides patches, tiny has no patch tokens. Name one that it runs with" in cli(*flags).err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["augmentations", "simcrl"], "preview: unknown augmentation 'simcrl'. Did you mean 'simclr'? Available: "),
        (["augmentations", "simclr+nnoe"], "unknown augmentation 'nnoe'. Did you mean 'none'?"),
        (["augmentations", "multicrop+none"], "'multicrop' cannot stand in a chain"),
        (["pretext-tasks", "rotatoin"], "preview: unknown pretext task 'rotatoin'. Did you mean 'rotation'?"),
        (
            ["pretext-tasks", "mae", "simclr"],
            "'simclr': its encoder sees the views as they are. See what makes them with:",
        ),
        (["pretext-tasks", "random_init"], "clvr-bench preview augmentations"),
        (["pretext-tasks", "mae", "--encoder", "resnet19"], "unknown encoder 'resnet19'. Did you mean 'resnet18'?"),
        (["pretext-tasks", "mae", "--set", "mae.mask_ratio=2"], "mae: mask_ratio must hide some of 16 patches"),
        (["pretext-tasks", "mae", "--set", "mae.decoder_dim=30"], "mae: decoder_dim must be a multiple of 4"),
        (["pretext-tasks", "--set", "mae.mask_ratio=2"], "mae: mask_ratio must hide some of 16 patches"),
        (["augmentations", "none", "--encoder", "resnet18"], "--encoder resnet18: augmentations need none."),
        (["augmentations", "none", "--dataset", "shape"], "unknown dataset 'shape'. Did you mean 'shapes'?"),
        (["augmentations", "none", "--dataset", "folder"], "it needs a folder of pictures. Name it with --data-root"),
        (
            ["augmentations", "none", "--output", "none.bmp"],
            "--output none.bmp: its name must end in .png, .svg or .pdf.",
        ),
        (["augmentations", "none", "--output", "none"], "--output none: its name must end in"),
        (
            ["augmentations", "none", "--output", "file/none.png"],
            "--output file/none.png: cannot be written (File exists)",
        ),
        (
            ["augmentations", "none", "--output", "folder.png"],
            "--output folder.png: it is a folder. Name a file in it.",
        ),
        (["augmentations", "none", "--images", "one"], "--images one: expected whole numbers, such as 3,17."),
        (["augmentations", "none", "--images", "3,"], "--images 3,: expected whole numbers"),
        (
            ["augmentations", "none", "--images", "3,20"],
            "--images 20: dataset 'shapes' has the training pictures 0 to 19.",
        ),
        (["augmentations", "none", "--images", "1,2,3,4,5,6,7,8,9"], "9 pictures are too many; name at most 8."),
        (["augmentations", "none", "--size", "4"], "Invalid value for '--size'"),
        (["augmentations", "none", "--seed", "-1"], "Invalid value for '--seed'"),
        (["augmentations", "simclr", "--set", "simclr.temprature=1"], "unknown option 'temprature'. Available: area"),
        (
            ["augmentations", "simclr", "--set", "simclr.area=1"],
            "augmentation 'simclr': area must be tuple[float, float]",
        ),
        (["augmentations", "simclr", "--set", "simclr.area=[2.0,3.0]"], "simclr: area must be"),
        (["augmentations", "--set", "simclr.area=[2.0,3.0]"], "simclr: area must be"),
        (["augmentations", "none", "--set", "simclr.area=1"], "unknown name 'simclr'. Available: none, shapes."),
        (["augmentations", "none", "--set", "encoder.none.x=1"], "--set encoder.none.x=1: unknown name 'none'."),
        (["methods"], "'methods' is not one of 'augmentations', 'pretext-tasks'"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(preview: Preview, flags: list[str], message: str) -> None:
    preview("augmentations", "none", "--output", "first.png")  # moves into an empty folder
    Path("first.png").unlink()
    Path("file").write_text("in the way")
    Path("folder.png").mkdir()
    answer = preview(*flags)
    assert answer.code == 2, answer.out + answer.err
    assert message in answer.err
    assert len(answer.err.strip().splitlines()) == 1
    assert sorted(path.name for path in Path().iterdir()) == ["file", "folder.png"]
