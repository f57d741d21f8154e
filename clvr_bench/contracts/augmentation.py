"""The augmentation contract: stored pictures in, views out, batched, with per-sample parameters. It knows no task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from clvr_bench.contracts.values import Images
from clvr_bench.draws import SampleRandom


@dataclass(frozen=True)
class Role:
    """One kind of view.

    Attributes:
        name: Such as ``"global"`` or ``"local"``.
        views: How many of them.
        size: Height and width in pixels.
    """

    name: str
    views: int
    size: int


class Augmentation(ABC):
    """Makes views of pictures. Built as ``factory(data, **options)``; an author implements ``__call__``.

    It keeps no state: a batch may be cut into parts, and these may be worked on at once, in threads.

    Attributes:
        arrangement: ``"alike"``: any number of views, drawn alike; ``"pair"``: exactly two, from fixed different
            distributions; ``"roles"``: those that ``roles`` lists, for tasks that take ``"multi"``.
        roles: The kinds of views, in the order returned; for ``"roles"`` only.
        setting: Which of its settings is in use, such as ``"small"``; shown in the row.
    """

    arrangement: ClassVar[Literal["alike", "pair", "roles"]] = "alike"
    roles: tuple[Role, ...] = ()
    setting: str = ""

    @abstractmethod
    def __call__(self, images: Images, views: int, random: SampleRandom) -> list[Tensor]:
        """Make views.

        Args:
            images: B stored pictures.
            views: V, how many views of each.
            random: Per-sample draws; streams named by purpose, scoped by view.

        Returns:
            V tensors (B, C, size, size), float32 in [0, 1]; ``size`` is ``data.image_size`` or the role's.
        """


class PerView(Augmentation):
    """Makes views that are alike, one at a time: an author implements ``view``."""

    def __call__(self, images: Images, views: int, random: SampleRandom) -> list[Tensor]:
        """Return V views, each with draws of its own; see ``Augmentation``."""
        return [self.view(images, random.scoped(f"view{number}")) for number in range(views)]

    @abstractmethod
    def view(self, images: Images, random: SampleRandom) -> Tensor:
        """Make one view of each picture.

        Args:
            images: B stored pictures.
            random: Per-sample draws for this view alone; streams named by purpose.

        Returns:
            (B, C, size, size) float32 in [0, 1], ``size`` being ``data.image_size``; in memory of its own.
        """
