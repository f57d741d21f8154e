"""Small files in the formats of CIFAR, STL-10 and ImageNet, and torchvision's checksums changed to theirs.

The originals are not at hand where tests run; nothing else of torchvision is changed.
"""

from __future__ import annotations

import hashlib
import pickle
import struct
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision import datasets
from torchvision.datasets import imagenet

Pixels = NDArray[np.uint8]
WORDNET = {
    "n01440764": ("tench", "Tinca tinca"),
    "n02012849": ("crane",),
    "n03126707": ("crane",),
    "n03710637": ("maillot",),
    "n03710721": ("maillot", "tank suit"),
}
CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
COARSE = {"aquatic": ("seal", "whale"), "flowers": ("orchid", "rose", "tulip")}
FINE = ("orchid", "rose", "seal", "tulip", "whale")
COARSE_OF_FINE = (1, 1, 0, 1, 0)


def md5_of(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def noise(count: int, side: int, seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(256, size=(count, 3, side, side), dtype=np.uint8)


class _Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]  # the one whose parts can be replaced
    """Writes as Python 2.7 did with numpy 1.6: bytes for strings, old module names, numbers for numpy's booleans.

    Args:
        file: What is written to.
        copy: The third argument of ``numpy.dtype`` on reading; numpy 2.4 warns of any but the 1 that was written.
    """

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def __init__(self, file: Any, copy: int) -> None:
        super().__init__(file, protocol=2)
        self._copy = copy

    def _save_text(self, text: str | bytes) -> None:
        content = text.encode() if isinstance(text, str) else text
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(text)

    dispatch[str] = dispatch[bytes] = _save_text

    def _save_global(self, value: Any, name: str | None = None) -> None:
        module = "numpy.core.multiarray" if value.__name__ == "_reconstruct" else value.__module__
        self.write(pickle.GLOBAL + f"{module}\n{value.__name__}\n".encode())
        self.memoize(value)

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, np.dtype):
            return np.dtype, (value.str[1:], 0, self._copy), value.__reduce__()[2]
        if isinstance(value, np.ndarray):
            rebuild, arguments, (_, shape, dtype, _, content) = value.__reduce__()
            return rebuild, arguments, (1, shape, dtype, False, content)
        return NotImplemented

    dispatch[type] = _save_global
    dispatch[type(np.zeros(1).__reduce__()[0])] = _save_global


def write_pickle(path: Path, content: dict[str, Any], copy: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        _Python2Pickler(file, copy).dump(content)


def write_cifar10(root: Path, patch: pytest.MonkeyPatch, count: int = 20, copy: int = 1) -> None:
    """Write five training batches and a test batch of so many pictures each; label i mod 10 at position i."""
    reader, names = datasets.CIFAR10, list(CIFAR10_NAMES)
    folder = root / reader.base_folder
    for number, (filename, _) in enumerate([*reader.train_list, *reader.test_list]):
        batch = {
            "batch_label": f"training batch {number + 1} of 5",
            "labels": [position % 10 for position in range(count)],
            "data": noise(count, 32, number).reshape(count, -1),
            "filenames": [f"{position}.png" for position in range(count)],
        }
        write_pickle(folder / filename, batch, copy)
    write_pickle(folder / "batches.meta", {"num_cases_per_batch": count, "label_names": names, "num_vis": 3072})
    adopt(reader, root, patch)


def write_cifar100(root: Path, patch: pytest.MonkeyPatch, count: int = 120) -> None:
    """Write a training and a test file of so many pictures each, of five classes in two coarse ones."""
    reader = datasets.CIFAR100
    folder = root / reader.base_folder
    for number, (filename, _) in enumerate([*reader.train_list, *reader.test_list]):
        fine = [position % len(FINE) for position in range(count)]
        batch = {
            "filenames": [f"{position}.png" for position in range(count)],
            "batch_label": f"{filename} batch 1 of 1",
            "fine_labels": fine,
            "coarse_labels": [COARSE_OF_FINE[label] for label in fine],
            "data": noise(count, 32, 10 + number).reshape(count, -1),
        }
        write_pickle(folder / filename, batch)
    write_pickle(folder / "meta", {"fine_label_names": list(FINE), "coarse_label_names": list(COARSE)})
    adopt(reader, root, patch)


def write_stl10(root: Path, patch: pytest.MonkeyPatch, train: int = 40, test: int = 20, unlabelled: int = 15) -> None:
    """Write the five binary files: labels from 1, pixels channel by channel, each column after column."""
    folder = root / datasets.STL10.base_folder
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, count) in enumerate((("train", train), ("test", test), ("unlabeled", unlabelled))):
        noise(count, 96, 20 + number).transpose(0, 1, 3, 2).tofile(folder / f"{name}_X.bin")
        if name != "unlabeled":
            (np.arange(count) % 10 + 1).astype(np.uint8).tofile(folder / f"{name}_y.bin")
    adopt(datasets.STL10, root, patch)


def adopt(reader: Any, root: Path, patch: pytest.MonkeyPatch) -> None:
    """Make torchvision's checksums those of the files that lie in a folder now."""
    folder = root / reader.base_folder
    for attribute in ("train_list", "test_list"):
        patch.setattr(reader, attribute, [[name, md5_of(folder / name)] for name, _ in getattr(reader, attribute)])
    if hasattr(reader, "meta"):
        patch.setattr(reader, "meta", reader.meta | {"md5": md5_of(folder / reader.meta["filename"])})


def write_imagenet(root: Path, patch: pytest.MonkeyPatch, train: int = 6, val: int = 2) -> None:
    """Write so many pictures a class of five classes as folders, and ``meta.bin`` as torchvision does."""
    from clvr_plugins.datasets import imagenet as plugin

    truth = val_truth(val)
    for number, wordnet_id in enumerate(WORDNET):
        for position in range(train):
            save_jpeg(root / "train" / wordnet_id / f"{wordnet_id}_{position}.JPEG", 100 * number + position)
    for position, wordnet_id in enumerate(truth):
        save_jpeg(root / "val" / wordnet_id / val_name(position), 1000 + position)
    torch.save((WORDNET, truth), root / imagenet.META_FILE)
    patch.setattr(plugin, "TRAIN_PICTURES", train * len(WORDNET))


def val_truth(a_class: int) -> list[str]:
    """Return the class of each val picture: not in the order of the classes, as in the original."""
    return [list(WORDNET)[(3 * position) % len(WORDNET)] for position in range(a_class * len(WORDNET))]


def val_name(position: int) -> str:
    return f"ILSVRC2012_val_{position + 1:08d}.JPEG"


def save_jpeg(path: Path, seed: int, height: int = 40, width: int = 56) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    smooth = Image.fromarray(noise(1, 8, seed)[0].transpose(1, 2, 0)).resize((width, height), Image.Resampling.BICUBIC)
    smooth.save(path, quality=95)


def pack(archive: Path, folder: Path, names: Sequence[str], mode: str = "w") -> str:
    """Pack parts of a folder into an archive and return its checksum."""
    with tarfile.open(archive, mode) as tar:  # type: ignore[call-overload]
        for name in names:
            tar.add(folder / name, arcname=name)
    return md5_of(archive)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder's files over HTTP from this machine and yield the address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *given: Quiet(*given, directory=str(folder)))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
