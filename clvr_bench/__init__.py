"""clvr-bench: a plugin-based benchmark harness for self-supervised pretext tasks.

Names are imported when first used, so that commands which only read records never wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clvr_bench.api import compare as compare
    from clvr_bench.api import evaluate as evaluate
    from clvr_bench.api import leaderboard as leaderboard
    from clvr_bench.api import load_encoder as load_encoder
    from clvr_bench.api import pairs as pairs
    from clvr_bench.api import run as run
    from clvr_bench.contracts.augmentation import Augmentation as Augmentation
    from clvr_bench.contracts.augmentation import PerView as PerView
    from clvr_bench.contracts.augmentation import Role as Role
    from clvr_bench.contracts.dataset import Dataset as Dataset
    from clvr_bench.contracts.dataset import ResidentSplit as ResidentSplit
    from clvr_bench.contracts.dataset import Split as Split
    from clvr_bench.contracts.encoder import Encoder as Encoder
    from clvr_bench.contracts.evaluation import Evaluation as Evaluation
    from clvr_bench.contracts.evaluation import Frozen as Frozen
    from clvr_bench.contracts.evaluation import Scores as Scores
    from clvr_bench.contracts.pretext_task import Epoch as Epoch
    from clvr_bench.contracts.pretext_task import PretextTask as PretextTask
    from clvr_bench.contracts.pretext_task import decay_groups as decay_groups
    from clvr_bench.contracts.recipe import Recipe as Recipe
    from clvr_bench.contracts.values import Batch as Batch
    from clvr_bench.contracts.values import DataFacts as DataFacts
    from clvr_bench.contracts.values import EncoderFacts as EncoderFacts
    from clvr_bench.contracts.values import Images as Images
    from clvr_bench.contracts.values import Phase as Phase
    from clvr_bench.contracts.values import Progress as Progress
    from clvr_bench.contracts.values import StepOutput as StepOutput
    from clvr_bench.draws import Draws as Draws
    from clvr_bench.draws import SampleRandom as SampleRandom
    from clvr_bench.errors import ClvrBenchError as ClvrBenchError
    from clvr_bench.hooks import Register as Register
    from clvr_bench.hooks import hookimpl as hookimpl
    from clvr_bench.literature import published as published
    from clvr_bench.options import InputFile as InputFile
    from clvr_bench.records import EvaluationRecord as EvaluationRecord
    from clvr_bench.records import PretrainingRecord as PretrainingRecord

_HOMES = {
    "api": ("compare", "evaluate", "leaderboard", "load_encoder", "pairs", "run"),
    "contracts.augmentation": ("Augmentation", "PerView", "Role"),
    "contracts.dataset": ("Dataset", "ResidentSplit", "Split"),
    "contracts.encoder": ("Encoder",),
    "contracts.evaluation": ("Evaluation", "Frozen", "Scores"),
    "contracts.pretext_task": ("Epoch", "PretextTask", "decay_groups"),
    "contracts.recipe": ("Recipe",),
    "contracts.values": ("Batch", "DataFacts", "EncoderFacts", "Images", "Phase", "Progress", "StepOutput"),
    "draws": ("Draws", "SampleRandom"),
    "errors": ("ClvrBenchError",),
    "hooks": ("Register", "hookimpl"),
    "literature": ("published",),
    "options": ("InputFile",),
    "records": ("EvaluationRecord", "PretrainingRecord"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'clvr_bench' has no attribute {name!r}")
    return getattr(import_module(f"clvr_bench.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
