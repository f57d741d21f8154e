"""Ready-made weights: the encoder as somebody else trained it, read from a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from clvr_bench import ClvrBenchError, DataFacts, Encoder, Epoch, InputFile, PretextTask, Register, hookimpl
from clvr_bench.toolbox import NORMALIZATIONS, Match, Normalization, WeightFormat, match, read_tensors

FormatName = Literal[
    "auto", "barlow_twins", "byol", "clvr_bench", "dino", "lightly", "mae", "moco", "simclr", "solo", "swav", "timm",
    "torchvision", "vicreg", "vissl",
]  # fmt: skip
NormalizationName = Literal["format", "encoder", "cifar10", "cifar100", "half", "imagenet", "none"]
LabelsName = Literal["unknown", "none", "fine", "coarse", "partial"]


@hookimpl
def register_pretext_tasks(register: Register) -> None:
    """Register weights from a file."""
    register(
        "weights",
        Weights,
        summary="Ready-made weights, read from a file: nothing is trained.",
        source="none",
        version=1,
    )


class Weights(PretextTask):
    """The encoder with the weights of a file, and with the input normalization that they were trained with.

    The file is compared with the encoder when the task is built, so that one which does not fit is refused before
    anything runs, and is read when the run starts. Built from a record, only the file's hash is known: the weights
    then come from the run's own.

    Args:
        encoder: Gets the weights.
        data: Unused.
        file: A safetensors file or a torch checkpoint; nothing in it is unpickled.
        format: How the file is laid out; ``"auto"`` takes the layout under which the most fits.
        partial: Whether weights that fit the encoder only in part will do.
        normalization: What is subtracted from pictures, and what they are divided by: the format's, the encoder's own,
            or one that goes by a name.
        labels: Which labels the weights were trained with; it marks the row.
    """

    views = 0
    trains = False
    ranked = False

    def __init__(
        self,
        encoder: Encoder,
        data: DataFacts,
        *,
        file: InputFile,
        format: FormatName = "auto",  # noqa: A002 - what users call it
        partial: bool = False,
        normalization: NormalizationName = "format",
        labels: LabelsName = "unknown",
    ) -> None:
        super().__init__()
        self._file, self._normalization = file, normalization
        self._match: Match | None = None
        if file.path:
            tensors = read_tensors(file.verified_path(), shapes_only=True)
            self._match = match(tensors, encoder, format)
            self._match.require(file.name, partial=partial)
            self._require_one_normalization(self._match, encoder)
        for name in ("mean", "std"):  # saved with the weights, without which they would be worth nothing
            encoder.register_buffer(name, getattr(encoder, name))
        self.encoder = encoder

    @classmethod
    def reported_labels(cls, **options: Any) -> str:
        """Return what the user says of the weights: nobody else knows."""
        return str(options["labels"])

    def before_epoch(self, epoch: Epoch) -> None:
        """Read the weights.

        Raises:
            ClvrBenchError: The file is gone, was changed, or only its hash is known.
        """
        if self._match is None:
            raise ClvrBenchError(f"weights: only the hash of {self._file.shown} is known. Give the path of the file.")
        tensors = read_tensors(self._file.verified_path())
        self._match.load(tensors, self.encoder)
        expected = self._expected(self._match.format, tensors)
        if expected is not None:
            self._normalize(expected)

    def facts(self) -> Mapping[str, Any]:
        """Return which file it was, and what of it was taken."""
        if self._match is None:
            return {}
        mean, std = (
            [round(value, 6) for value in part.flatten().tolist()] for part in (self.encoder.mean, self.encoder.std)
        )
        return {"file": self._file.name, "hash": str(self._file), "mean": mean, "std": std, **self._match.facts()}

    def _expected(self, layout: WeightFormat, tensors: Mapping[str, Tensor]) -> Normalization | None:
        """Return the normalization of the weights' inputs; None where it is the encoder's own."""
        if self._normalization != "format":
            return NORMALIZATIONS.get(self._normalization)
        if layout.name == "clvr_bench" and {"mean", "std"} <= tensors.keys():  # a run with weights, saved
            mean, std = (tuple(tensors[name].flatten().tolist()) for name in ("mean", "std"))
            return Normalization(mean, std)
        return layout.normalization

    def _normalize(self, expected: Normalization) -> None:
        fitting = expected.for_channels(len(self.encoder.mean))
        for buffer, values in ((self.encoder.mean, fitting.mean), (self.encoder.std, fitting.std)):
            buffer.copy_(torch.tensor(values).view(-1, 1, 1))

    def _require_one_normalization(self, found: Match, encoder: Encoder) -> None:
        """Refuse a file that fits several formats alike, if they expect inputs to be normalized differently.

        Raises:
            ClvrBenchError: They do.
        """
        if self._normalization != "format":
            return
        own, channels = _own_normalization(encoder), len(encoder.mean)
        names: dict[str, list[str]] = {}
        for layout in found.alike:
            expected = layout.normalization.for_channels(channels) if layout.normalization else own
            if expected:
                names.setdefault(_told(expected), []).append(layout.name)
        if len(names) > 1:
            told = "; ".join(f"{', '.join(fitting)} ({expected})" for expected, fitting in names.items())
            raise ClvrBenchError(
                f"{self._file.name}: it fits several formats alike, whose inputs are normalized differently: {told}. "
                "Say which it is with the option 'format', or set 'normalization'."
            )


def _own_normalization(encoder: Encoder) -> Normalization | None:
    """Return what an encoder expects by itself; None where its buffers have no values to tell, on the meta device."""
    own = getattr(encoder, "normalization", None)
    if isinstance(own, Normalization) or encoder.mean.is_meta:
        return own
    return Normalization(tuple(encoder.mean.flatten().tolist()), tuple(encoder.std.flatten().tolist()))


def _told(normalization: Normalization) -> str:
    """Tell a normalization to two digits: what differs by less makes no difference worth a question."""
    mean, std = (
        "/".join(f"{round(value, 5):.2f}" for value in values)  # float32's 0.225 and Python's are one
        for values in (normalization.mean, normalization.std)
    )
    return f"mean {mean}, std {std}"
