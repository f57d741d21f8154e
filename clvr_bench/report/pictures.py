"""Pictures that the page shows besides, such as those that ``preview`` drew: files become a part of it."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from clvr_bench.errors import ClvrBenchError

TYPES = {".png": "image/png", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class Picture:
    """A picture file.

    Attributes:
        name: The file's, without its suffix.
        address: The whole file as a ``data:`` address.
    """

    name: str
    address: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file; what a browser does with its content is up to the browser, which runs no script of a picture.

        Raises:
            ClvrBenchError: It is neither PNG nor SVG by its name, or cannot be read.
        """
        if path.suffix.lower() not in TYPES:
            hint = "Draw one with: clvr-bench preview augmentations --output augmentations.png"
            raise ClvrBenchError(f"--picture {path}: expected a name that ends in {' or '.join(TYPES)}. {hint}")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ClvrBenchError(f"--picture {path}: cannot be read ({error.strerror}).") from None
        return cls(path.stem, f"data:{TYPES[path.suffix.lower()]};base64,{b64encode(content).decode()}")
