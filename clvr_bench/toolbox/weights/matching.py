"""Which tensor of a file is which of an encoder's: tried in every layout that a format allows, and told in full."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from clvr_bench.contracts.encoder import Encoder
from clvr_bench.errors import ClvrBenchError, unknown
from clvr_bench.toolbox.weights.formats import WEIGHT_FORMATS, WeightFormat
from clvr_bench.toolbox.weights.networks import network_of

_NAMES_SHOWN = 3
_NEVER_NEEDED = re.compile(r"(.*\.)?num_batches_tracked|mean|std")  # the latter two: the encoder's own normalization
_WRAPPER = "network."  # what TimmEncoder, and whoever follows it, has in front of the names of a network

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Match:
    """How the tensors of a file fit an encoder, in one of the layouts of a format.

    Attributes:
        format: The layout.
        place: Root and prefix of the encoder's names in the file.
        matched: The file's names by the encoder's.
        missing: The encoder's names that the file has nothing for.
        unexpected: The file's names, below the root, that are neither the encoder's nor known to be of another part.
        left_out: Tensors of heads and other known parts, counted by the part.
        mismatched: By the encoder's name: the shape in the file and in the encoder.
        elsewhere: How many tensors the file has outside the root.
        alike: All formats under which the file fits as well as this, this one included.
        networks: What the file and the encoder look like; empty where they are not recognized.
    """

    format: WeightFormat
    place: str
    matched: Mapping[str, str]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    left_out: Mapping[str, int]
    mismatched: Mapping[str, tuple[Shape, Shape]]
    elsewhere: int
    alike: tuple[WeightFormat, ...] = ()
    networks: tuple[str, str] = ("", "")

    @property
    def complete(self) -> bool:
        """Whether the encoder gets all of its tensors, and the file has none that are not accounted for."""
        return bool(self.matched) and not (self.missing or self.unexpected or self.mismatched)

    def require(self, what: str, *, partial: bool = False) -> None:
        """Refuse a match that is not complete.

        Args:
            what: The file, for the message.
            partial: Whether a part will do; nothing at all never does.

        Raises:
            ClvrBenchError: It is not; with counts, and the first names of each kind.
        """
        if self.complete or (partial and self.matched):
            return
        hint = self._hint()
        if self.matched:
            raise ClvrBenchError(f"{what}: it fits the encoder only in part. {self._counts()}.{hint} "
                                 "To load what fits, set partial=true, or give --partial to evaluate.")  # fmt: skip
        raise ClvrBenchError(f"{what}: nothing in it fits the encoder. {self._counts()}.{hint} "
                             "Choose the encoder that it was made with, or another format.")  # fmt: skip

    def _hint(self) -> str:
        """Say which networks file and encoder look like, where they look like different ones."""
        sides = zip(("file", "encoder"), self.networks, strict=True)
        known = [f"the {side} looks like {network}" for side, network in sides if network]
        return f" Here {' and '.join(known)}." if known and len(set(self.networks)) == 2 else ""

    def load(self, state: Mapping[str, Tensor], encoder: Encoder) -> None:
        """Copy what matched into the encoder; all else in it stays as it is.

        Args:
            state: The file's tensors, with their values.
            encoder: The one that was matched, or its like.
        """
        encoder.load_state_dict({name: state[source] for name, source in self.matched.items()}, strict=False)

    def report(self) -> str:
        """Tell in a paragraph what was matched, what is missing, and what was not taken."""
        parts = ", ".join(f"{part} ({count})" for part, count in self.left_out.items())
        left = f" Left out as parts that are not the encoder's: {parts}." if parts else ""
        rest = f" Not looked at: {self.elsewhere} tensors elsewhere in the file." if self.elsewhere else ""
        return f"{self._counts()}.{left}{rest}"

    def facts(self) -> dict[str, Any]:
        """Return all of it as JSON has it, for a record."""
        return {
            "format": self.format.name,
            "format_source": self.format.source,
            "formats_alike": sorted({layout.name for layout in self.alike}),
            "place": self.place,
            "matched": len(self.matched),
            "missing": list(self.missing),
            "unexpected": list(self.unexpected),
            "left_out": dict(self.left_out),
            "mismatched": {name: [list(shape) for shape in shapes] for name, shapes in self.mismatched.items()},
            "elsewhere": self.elsewhere,
            "report": self.report(),
        }

    def _counts(self) -> str:
        total = len(self.matched) + len(self.missing) + len(self.mismatched)
        shapes = [
            f"{n}: {_times(ours)} in the file, {_times(theirs)} here" for n, (ours, theirs) in self.mismatched.items()
        ]
        place = f" under '{self.place}'" if self.place else ""
        return (
            f"Format {self.format.name}{place}: {len(self.matched)} of {total} tensors fit, "
            f"{_some(self.missing)} missing, {_some(self.unexpected)} unexpected, {_some(shapes)} of another shape"
        )


def _times(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "a number"


def _some(names: Iterable[str]) -> str:
    """Count names and show the first of them."""
    listed = list(names)
    first = ", ".join(listed[:_NAMES_SHOWN]) + (", ..." if len(listed) > _NAMES_SHOWN else "")
    return f"{len(listed)} ({first})" if listed else "0"


def match(state: Mapping[str, Tensor], encoder: Encoder, format: str = "auto") -> Match:  # noqa: A002 - the field's word
    """Find the encoder's tensors among those of a file.

    Args:
        state: The file's tensors by name, see ``read_tensors``; of any device, since only shapes are looked at.
        encoder: On any device. Its mean and standard deviation, and BatchNorm's counters, are not asked for.
        format: The name of one of ``WEIGHT_FORMATS``, or ``"auto"`` for the one under which the most fits.

    Returns:
        The best match, which may be none at all: call ``require``.

    Raises:
        ClvrBenchError: There is no such format.
    """
    layouts = [layout for layout in WEIGHT_FORMATS if format in ("auto", layout.name)]
    if not layouts:
        raise ClvrBenchError(unknown("weight format", format, {layout.name for layout in WEIGHT_FORMATS} | {"auto"}))
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items() if not _NEVER_NEEDED.fullmatch(name)}
    wanted = _wanted(encoder)
    found = [_try(shapes, wanted, layout, root, prefix) for layout, root, prefix in _places(layouts, shapes)]
    best = max(found, key=_fit)  # the first of equals
    alike = tuple(dict.fromkeys(other.format for other in found if _fit(other) == _fit(best)))
    return replace(
        best, alike=alike, networks=(_network(best, shapes), network_of({n: s for n, (_, s) in wanted.items()}))
    )


def _wanted(encoder: Encoder) -> dict[str, tuple[str, Shape]]:
    """Return the encoder's own names and shapes by the names that timm would give them."""
    own = {name: tuple(t.shape) for name, t in encoder.state_dict().items() if not _NEVER_NEEDED.fullmatch(name)}
    wrapped = all(name.startswith(_WRAPPER) for name in own)
    return {name.removeprefix(_WRAPPER) if wrapped else name: (name, shape) for name, shape in own.items()}


def _places(layouts: Iterable[WeightFormat], names: Iterable[str]) -> list[tuple[WeightFormat, str, str]]:
    """List every root and prefix of every layout that the names have; the first of all where they have none."""
    listed = list(names)
    places = [(layout, root, prefix) for layout in layouts for root in layout.roots for prefix in layout.prefixes]
    return [place for place in places if _is_there(*place, listed)] or places[:1]


def _is_there(layout: WeightFormat, root: str, prefix: str, names: Iterable[str]) -> bool:
    pattern = re.compile(re.escape(root + prefix) + layout.marks)
    return any(pattern.match(name) for name in names)


def _fit(found: Match) -> tuple[int, int, int]:
    return len(found.matched), len(found.mismatched), -len(found.unexpected)


def _try(
    shapes: Mapping[str, Shape], wanted: Mapping[str, tuple[str, Shape]], layout: WeightFormat, root: str, prefix: str
) -> Match:
    """Match in one place of one layout."""
    matched, mismatched = {}, {}
    left_out: Counter[str] = Counter()
    unexpected, taken = [], set()
    below = [name for name in shapes if name.startswith(root)]
    for name in below:
        inner = name.removeprefix(root)
        bare = inner.removeprefix(prefix)
        ours = _translated(bare, layout) if inner.startswith(prefix) else ""
        if ours in wanted and ours not in taken:
            own, shape = wanted[ours]
            taken.add(ours)
            if shape == shapes[name]:
                matched[own] = name
            else:
                mismatched[ours] = (shapes[name], shape)
        elif part := _part(bare, layout):
            left_out[part] += 1
        else:
            unexpected.append(name)
    missing = [ours for ours in wanted if ours not in taken]
    return Match(
        layout,
        root + prefix,
        matched,
        tuple(missing),
        tuple(unexpected),
        left_out,
        mismatched,
        len(shapes) - len(below),
    )


def _translated(name: str, layout: WeightFormat) -> str:
    for pattern, replacement in layout.renames:
        name = re.sub(pattern, replacement, name)
    return name


def _part(name: str, layout: WeightFormat) -> str:
    """Return what part, known not to be the encoder's, a name is of; empty where it is of none."""
    for pattern in layout.left_out:
        if found := re.match(pattern, name):
            return found[0].rstrip(".")
    return ""


def _network(best: Match, shapes: Mapping[str, Shape]) -> str:
    """Say what network the file is of."""
    inside = {name.removeprefix(best.place): shape for name, shape in shapes.items() if name.startswith(best.place)}
    return network_of({_translated(name, best.format): shape for name, shape in inside.items()})
