"""Data sets that others publish as an archive: fetched on request, and never read unless their checksums agree."""

from __future__ import annotations

import tarfile
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from torchvision.datasets.utils import (  # type: ignore[import-untyped]  # it ships no types
    calculate_md5,
    download_and_extract_archive,
)

from clvr_bench.errors import ClvrBenchError

_FETCHING = (OSError, RuntimeError, HTTPException, tarfile.TarError, EOFError, zlib.error)
"""What fetching and extracting raise: no network, no such file, a cut-off transfer, another checksum, a full disk."""


@dataclass(frozen=True)
class Archive:
    """An archive of files that are known by their MD5 checksums.

    Attributes:
        dataset: The data set's registered name, for messages.
        url: Where the archive is fetched from.
        filename: The archive's name in the data root.
        md5: Its checksum.
        folder: The folder that it makes in the data root.
        files: The checksum of each file in that folder, by name.
    """

    dataset: str
    url: str
    filename: str
    md5: str
    folder: str
    files: Mapping[str, str]

    @classmethod
    def of_torchvision(cls, dataset: str, reader: Any) -> Archive:
        """Return the archive that a data set class of torchvision reads, with torchvision's address and checksums.

        Args:
            dataset: The registered name, for messages.
            reader: A class such as ``torchvision.datasets.CIFAR10``.
        """
        files = dict([*reader.train_list, *reader.test_list])
        if hasattr(reader, "meta"):
            files[reader.meta["filename"]] = reader.meta["md5"]
        return cls(dataset, reader.url, reader.filename, reader.tgz_md5, reader.base_folder, files)

    def checked(self, root: Path | None) -> Path:
        """Return the data root once every file there is known to be the published one.

        Args:
            root: ``--data-root``.

        Raises:
            ClvrBenchError: There is no root; a file is missing, cannot be read, or has another checksum.
        """
        if root is None:
            raise ClvrBenchError(
                f"dataset {self.dataset}: it needs the folder that holds '{self.folder}'. Name it with --data-root "
                "DIR; with --download the files are fetched into it."
            )
        self._require_outer(root)
        fault = self._fault(root)
        if fault:
            raise ClvrBenchError(f"dataset {self.dataset}: {fault} {self._remedy(root)}")
        return root

    def download(self, root: Path) -> None:
        """Fetch and extract the archive, unless all files are there; one that is there is extracted, not fetched.

        Args:
            root: The folder that it is fetched into; made where it is missing.

        Raises:
            ClvrBenchError: It cannot be fetched or extracted, or is not what its checksum says.
        """
        self._require_outer(root)
        if not self._fault(root):
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # torchvision extracts without naming a filter
                download_and_extract_archive(self.url, root, filename=self.filename, md5=self.md5)
        except _FETCHING as error:
            if isinstance(error, HTTPError):
                error.close()  # it holds the connection
            raise ClvrBenchError(
                f"dataset {self.dataset}: --download could not fetch {self.url} into {root} ({_told(error)}). Try "
                f"again, or put {self.filename} there by other means: --download then checks and extracts it."
            ) from None
        self.checked(root)

    @contextmanager
    def reading(self, root: Path) -> Iterator[None]:
        """Turn what goes wrong while the files are read into an error of one line.

        Raises:
            ClvrBenchError: A file vanished or cannot be read.
        """
        try:
            yield
        except (OSError, RuntimeError) as error:
            raise ClvrBenchError(
                f"dataset {self.dataset}: the files in {root / self.folder} cannot be read ({_told(error)})."
            ) from None

    def _require_outer(self, root: Path) -> None:
        if all((root / name).is_file() for name in self.files):
            raise ClvrBenchError(
                f"dataset {self.dataset}: {root} is '{self.folder}' itself. Name the folder that holds it: "
                f"--data-root {root.resolve().parent}"
            )

    def _fault(self, root: Path) -> str:
        """Say what keeps the files from being used; nothing where all is well."""
        missing = [name for name in self.files if not (root / self.folder / name).is_file()]
        if missing:
            others = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
            return f"{root / self.folder / missing[0]} is missing{others}."
        return next(filter(None, (_damage(root / self.folder / name, md5) for name, md5 in self.files.items())), "")

    def _remedy(self, root: Path) -> str:
        return f"Add --download to fetch {self.filename} and extract it, or extract it into {root} yourself."


def _damage(path: Path, md5: str) -> str:
    try:
        found = calculate_md5(path)
    except OSError as error:
        return f"{path} cannot be read ({_told(error)})."
    return "" if found == md5 else f"{path} is damaged or was changed: its MD5 is {found}, the published file's {md5}."


def _told(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
