"""What pretext tasks and encoders share: heads, targets, memories, normalization, timm's networks. Public, for all."""

from clvr_bench.toolbox.batch_norm import SplitBatchNorm as SplitBatchNorm
from clvr_bench.toolbox.batch_norm import split_batch_norm as split_batch_norm
from clvr_bench.toolbox.generative import ResidualMLP as ResidualMLP
from clvr_bench.toolbox.generative import can_double_to as can_double_to
from clvr_bench.toolbox.generative import picture_features as picture_features
from clvr_bench.toolbox.generative import picture_generator as picture_generator
from clvr_bench.toolbox.heads import linear_head as linear_head
from clvr_bench.toolbox.heads import mlp as mlp
from clvr_bench.toolbox.memory_bank import MemoryBank as MemoryBank
from clvr_bench.toolbox.nce import NCE as NCE
from clvr_bench.toolbox.nce import check_contrast as check_contrast
from clvr_bench.toolbox.patches import cut_pieces as cut_pieces
from clvr_bench.toolbox.patches import patch_grid as patch_grid
from clvr_bench.toolbox.patches import patchify as patchify
from clvr_bench.toolbox.patches import tiled as tiled
from clvr_bench.toolbox.queue import Queue as Queue
from clvr_bench.toolbox.spectral_norm import SpectralNorm as SpectralNorm
from clvr_bench.toolbox.targets import MomentumTarget as MomentumTarget
from clvr_bench.toolbox.targets import growing_momentum as growing_momentum
from clvr_bench.toolbox.timm_encoder import TimmEncoder as TimmEncoder

__all__ = [
    "NCE",
    "MemoryBank",
    "MomentumTarget",
    "Queue",
    "ResidualMLP",
    "SpectralNorm",
    "SplitBatchNorm",
    "TimmEncoder",
    "can_double_to",
    "check_contrast",
    "cut_pieces",
    "growing_momentum",
    "linear_head",
    "mlp",
    "patch_grid",
    "patchify",
    "picture_features",
    "picture_generator",
    "split_batch_norm",
    "tiled",
]
