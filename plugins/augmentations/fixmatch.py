"""FixMatch's augmentation: a weak view and a strong one of every picture."""

from __future__ import annotations

from torch import Tensor

from clvr_bench import Augmentation, ClvrBenchError, DataFacts, Images, Register, SampleRandom, hookimpl
from clvr_bench.ops.crops import center_view
from clvr_bench.ops.distortions import check_operations
from clvr_bench.ops.geometry import cutout, shift_reflected
from clvr_bench.ops.rand_augment import rand_augment


@hookimpl
def register_augmentations(register: Register) -> None:
    """Register FixMatch's augmentation."""
    register(
        "fixmatch",
        FixMatchAugmentation,
        summary="A fixed pair: one view flipped and shifted, the other by RandAugment and Cutout too.",
        source="Sohn et al. 2020, https://arxiv.org/abs/2001.07685, section 2.3 and appendix",
        version=1,
    )


class FixMatchAugmentation(Augmentation):
    """View 0 weak, view 1 strong (Sohn et al. 2020, section 2.3).

    Weak: flipped by chance and shifted, mirroring the edge. Strong: a weak view of its own draws, then RandAugment with
    the operations and ranges of table 12, then a gray square of half the side (Cutout). The paper leaves the square's
    size and the weak changes under the strong ones open; both are those of the authors' code. That code also skips
    each operation half of the time and knows nine strengths of each; the paper, which does neither, is followed.

    Args:
        data: Facts of the data; views have its ``image_size``.
        flip: Probability of a horizontal flip; the paper's is 0.5, and 0 for digits.
        shift: The furthest shift, down and across, as a part of the side, from 0 to 0.5.
        operations: RandAugment's operations a picture, 0 or more.

    Raises:
        ClvrBenchError: An option is out of its range.
    """

    arrangement = "pair"

    def __init__(self, data: DataFacts, *, flip: float = 0.5, shift: float = 0.125, operations: int = 2) -> None:
        for option, value, high, usual in (("flip", flip, 1, 0.5), ("shift", shift, 0.5, 0.125)):
            if not 0 <= value <= high:
                rule = f"{option} must be from 0 to {high}"
                raise ClvrBenchError(f"augmentation fixmatch: {rule}, got {value}. The paper's is {usual}.")
        check_operations("fixmatch", operations)
        self.size, self.flip, self.operations, self.setting = data.image_size, flip, operations, "any size"
        self.furthest = round(shift * data.image_size)  # pixels

    def __call__(self, images: Images, views: int, random: SampleRandom) -> list[Tensor]:
        """Return two views (B, C, size, size), the weak one first."""
        whole = center_view(images, self.size)
        return [self._weak(whole, random.scoped("weak")), self._strong(whole, random.scoped("strong"))]

    def _weak(self, pixels: Tensor, random: SampleRandom) -> Tensor:
        shift = random("shift").integers(2 * self.furthest + 1, 2) - self.furthest
        return shift_reflected(pixels, shift, random("flip").chance(self.flip))

    def _strong(self, pixels: Tensor, random: SampleRandom) -> Tensor:
        changed = rand_augment(self._weak(pixels, random), random, self.operations)
        return cutout(changed, random("cutout").integers(self.size, 2), self.size // 4 * 2)
