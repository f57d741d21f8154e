"""Builds what a combination names: encoder, augmentation, pretext task. Separate random streams keep encoders equal."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from clvr_bench.combinations import Choice, Combination, TaskChoice
from clvr_bench.contracts.augmentation import Augmentation
from clvr_bench.contracts.encoder import Encoder
from clvr_bench.contracts.pretext_task import PretextTask
from clvr_bench.contracts.values import DataFacts, EncoderFacts, Images
from clvr_bench.convolutions import go_around_faults
from clvr_bench.data import Data
from clvr_bench.draws import SampleRandom, key_of
from clvr_bench.errors import ClvrBenchError, RunFailed
from clvr_bench.options import resolve_options


@contextmanager
def blaming(plugin: str, doing: str) -> Iterator[None]:
    """Turn whatever a plugin raises into one line that names it, the place and the error.

    Raises:
        RunFailed: With the original as its cause.
    """
    try:
        yield
    except ClvrBenchError as error:
        raise RunFailed(str(error)) from error
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(str(error).split())[:300]
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        raise RunFailed(f"{plugin}: {doing} raised {type(error).__name__}: {text} ({place})") from error


def build_encoder(choice: Choice, facts: DataFacts) -> Encoder:
    """Build an encoder and measure its feature dimension at the data's size.

    Raises:
        ClvrBenchError: What was built is no encoder.
    """
    encoder = choice.entry.factory(**choice.options)
    if not isinstance(encoder, Encoder):
        raise ClvrBenchError(
            f"encoder '{choice.entry.name}': its factory returned {type(encoder).__name__}, not an Encoder."
        )
    encoder.bind(_sibling_builder(choice, facts), choice.options)
    channels, size = len(encoder.mean), facts.image_size
    encoder.eval()
    with torch.no_grad():
        features = encoder(torch.zeros(1, channels, size, size, device=encoder.mean.device))
    if features.ndim != 2:
        raise ClvrBenchError(
            f"encoder '{choice.entry.name}': expected features (B, D), got {tuple(features.shape)}. Pool the map."
        )
    encoder.feature_dim, encoder.passes = features.shape[1], 0
    return encoder.train()


def _sibling_builder(choice: Choice, facts: DataFacts) -> Callable[..., Encoder]:
    def build(**options: object) -> Encoder:
        where = f"a sibling of encoder '{choice.entry.name}'"
        return build_encoder(Choice(choice.entry, resolve_options(choice.entry.options, options, where)), facts)

    return build


def encoder_facts(choice: Choice, facts: DataFacts) -> EncoderFacts:
    """Learn what a task may know of an encoder, without memory for its weights.

    Raises:
        ClvrBenchError: The encoder cannot be built, or cannot take pictures of the data's size.
    """
    try:
        with torch.device("meta"):
            encoder = build_encoder(choice, facts).eval()
    except ClvrBenchError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ClvrBenchError(
            f"encoder '{choice}' cannot take {facts.image_size} px pictures ({type(error).__name__}: {reason}). "
            "Choose another encoder or another image size."
        ) from error
    return EncoderFacts(
        name=choice.entry.name,
        feature_dim=encoder.feature_dim,
        parameters=sum(p.numel() for p in encoder.parameters()),
        minimum_size=encoder.minimum_size,
        has_feature_maps=_works(encoder.feature_maps, encoder, facts),
        has_tokens=_works(encoder.tokens, encoder, facts),
    )


def _works(method: Callable[[Tensor], object], encoder: Encoder, facts: DataFacts) -> bool:
    try:
        with torch.no_grad():
            method(torch.zeros(1, len(encoder.mean), facts.image_size, facts.image_size, device="meta"))
    except ClvrBenchError:
        return False
    return True


class Chain(Augmentation):
    """Several augmentations one after the other: the first makes the views, the others change each of them.

    Args:
        links: At least one, in order.
    """

    def __init__(self, links: list[Augmentation]) -> None:
        self._links = links
        self.arrangement = links[0].arrangement  # type: ignore[misc]  # a chain's arrangement is its first link's
        self.roles = links[0].roles
        self.setting = "+".join(dict.fromkeys(link.setting for link in links if link.setting))

    def __call__(self, images: Images, views: int, random: SampleRandom) -> list[Tensor]:
        """Make views; see ``Augmentation``."""
        made = self._links[0](images, views, random.scoped("link0"))
        for position, link in enumerate(self._links[1:], start=1):
            scope = random.scoped(f"link{position}")
            made = [link(Images.whole(view), 1, scope.scoped(f"view{v}"))[0] for v, view in enumerate(made)]
        return made


def build_augmentation(chain: tuple[Choice, ...], facts: DataFacts) -> Augmentation | None:
    """Build a chain of augmentations; None for an empty one.

    Raises:
        ClvrBenchError: A chain has a link that makes views of its own number or size where it cannot.
    """
    links = [choice.entry.factory(facts, **choice.options) for choice in chain]
    for position, (choice, link) in enumerate(zip(chain, links, strict=True)):
        if len(links) > 1 and (link.arrangement == "roles" or (position and link.arrangement == "pair")):
            names = "+".join(choice.entry.name for choice in chain)
            raise ClvrBenchError(
                f"augmentation {names}: '{choice.entry.name}' cannot stand {'there' if position else 'in a chain'}. "
                "Only the first link may make a pair, and none views of several roles."
            )
    return links[0] if len(links) == 1 else Chain(links) if links else None


def build_task(task: TaskChoice, encoder: Choice | None, seed: int, facts: DataFacts) -> PretextTask:
    """Build a pretext task with its encoder on the current default device.

    The encoder and the task's own parts draw from separate streams, so all tasks of a seed start from one encoder.

    Args:
        task: The pretext task.
        encoder: Its encoder; None where it uses none.
        seed: Of the run.
        facts: What the task may know of the data.
    """
    built = None
    if encoder:
        torch.manual_seed(key_of(seed, "encoder"))
        built = build_encoder(encoder, facts)
    torch.manual_seed(key_of(seed, "heads"))
    return task.task(built, facts, **task.options)


def build_task_on(device: torch.device, combination: Combination, facts: DataFacts) -> PretextTask:
    """Build a combination's task and move it to a device.

    Raises:
        RunFailed: Its constructor raised.
    """
    with blaming(combination.task.entry.name, "its constructor"):
        task = build_task(combination.task, combination.encoder, combination.seed, facts)
        if device.type == "cpu":
            go_around_faults(task)
        return task.to(device).to(memory_format=torch.channels_last)


def view_count(combination: Combination, augmentation: Augmentation | None) -> int:
    """Return V, how many views a step asks of the augmentation."""
    views = combination.task.task.views
    if augmentation is None or views == 0:
        return 0
    if views == "multi":
        return sum(role.views for role in augmentation.roles) if augmentation.arrangement == "roles" else 2
    return views


def skip_reason(combination: Combination, data: Data, encoder: EncoderFacts | None) -> str | None:
    """Say why a combination makes no sense; None where it does.

    Args:
        combination: What is asked.
        data: Its data.
        encoder: Facts of its encoder; None where it uses none.
    """
    task, name = combination.task.task, combination.task.entry.name
    data_facts = data.facts(task.labels)
    if task.labels == "coarse" and not data.dataset.coarse:
        return f"{name} needs coarse classes, which {data.title} has not"
    if combination.budget.accumulate > 1 and task.trains and not task.separable:
        return f"{name}'s loss is not a mean over samples, so a step cannot be accumulated from parts"
    augmentation = build_augmentation(combination.augmentation, data_facts)
    chain = "+".join(choice.entry.name for choice in combination.augmentation)
    if augmentation and augmentation.arrangement == "pair" and task.views not in (2, "multi"):
        return f"{name} takes {task.views} views, {chain} makes a fixed pair"
    if augmentation and augmentation.arrangement == "roles" and task.views != "multi":
        return f"{name} takes {task.views} alike views, {chain} makes views of several roles"
    if encoder is None:
        return None
    return task.skip_reason(encoder, data_facts) or _size_refused(combination, augmentation, data_facts)


def _size_refused(combination: Combination, augmentation: Augmentation | None, facts: DataFacts) -> str | None:
    """Say which of an augmentation's sizes the encoder cannot take, as patch encoders cannot take all."""
    sizes = {role.size for role in augmentation.roles} - {facts.image_size} if augmentation else set()
    for size in sorted(sizes):
        try:
            encoder_facts(combination.encoder, replace(facts, image_size=size))  # type: ignore[arg-type]  # it has one
        except ClvrBenchError:
            names = "+".join(choice.entry.name for choice in combination.augmentation)
            return f"{combination.encoder} cannot take the {size} px views of {names}"
    return None
