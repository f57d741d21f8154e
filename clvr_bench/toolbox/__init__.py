"""What plugins share: heads, targets, memories, normalization, timm's networks, the training of classifiers. Public."""

from clvr_bench.storage.picture_files import PictureFiles as PictureFiles
from clvr_bench.toolbox.archives import Archive as Archive
from clvr_bench.toolbox.batch_norm import SplitBatchNorm as SplitBatchNorm
from clvr_bench.toolbox.batch_norm import split_batch_norm as split_batch_norm
from clvr_bench.toolbox.classifier import ClassifierRecipe as ClassifierRecipe
from clvr_bench.toolbox.classifier import LabelledCrops as LabelledCrops
from clvr_bench.toolbox.classifier import Schedule as Schedule
from clvr_bench.toolbox.classifier import Training as Training
from clvr_bench.toolbox.classifier import center_outputs as center_outputs
from clvr_bench.toolbox.classifier import train_classifier as train_classifier
from clvr_bench.toolbox.classifier import zero_classifier as zero_classifier
from clvr_bench.toolbox.few_labels import labelled_subset as labelled_subset
from clvr_bench.toolbox.few_labels import stratified_folds as stratified_folds
from clvr_bench.toolbox.few_labels import training_part as training_part
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
from clvr_bench.toolbox.patches import enlarged_side as enlarged_side
from clvr_bench.toolbox.patches import patch_grid as patch_grid
from clvr_bench.toolbox.patches import patchify as patchify
from clvr_bench.toolbox.patches import resized as resized
from clvr_bench.toolbox.patches import tiled as tiled
from clvr_bench.toolbox.probe import Standardizer as Standardizer
from clvr_bench.toolbox.probe import strongest_best as strongest_best
from clvr_bench.toolbox.queue import Queue as Queue
from clvr_bench.toolbox.queue import check_queue as check_queue
from clvr_bench.toolbox.similarities import view_similarities as view_similarities
from clvr_bench.toolbox.spectral_norm import SpectralNorm as SpectralNorm
from clvr_bench.toolbox.targets import MomentumTarget as MomentumTarget
from clvr_bench.toolbox.targets import growing_momentum as growing_momentum
from clvr_bench.toolbox.timm_encoder import TimmEncoder as TimmEncoder
from clvr_bench.toolbox.weights import NORMALIZATIONS as NORMALIZATIONS
from clvr_bench.toolbox.weights import WEIGHT_FORMATS as WEIGHT_FORMATS
from clvr_bench.toolbox.weights import Match as Match
from clvr_bench.toolbox.weights import Normalization as Normalization
from clvr_bench.toolbox.weights import WeightFormat as WeightFormat
from clvr_bench.toolbox.weights import match as match
from clvr_bench.toolbox.weights import read_tensors as read_tensors

__all__ = [
    "NCE",
    "NORMALIZATIONS",
    "WEIGHT_FORMATS",
    "Archive",
    "ClassifierRecipe",
    "LabelledCrops",
    "Match",
    "MemoryBank",
    "MomentumTarget",
    "PictureFiles",
    "Queue",
    "ResidualMLP",
    "Schedule",
    "SpectralNorm",
    "SplitBatchNorm",
    "Standardizer",
    "TimmEncoder",
    "Training",
    "WeightFormat",
    "can_double_to",
    "center_outputs",
    "check_contrast",
    "check_queue",
    "cut_pieces",
    "enlarged_side",
    "growing_momentum",
    "labelled_subset",
    "linear_head",
    "match",
    "mlp",
    "patch_grid",
    "patchify",
    "picture_features",
    "picture_generator",
    "read_tensors",
    "resized",
    "split_batch_norm",
    "stratified_folds",
    "strongest_best",
    "tiled",
    "train_classifier",
    "training_part",
    "view_similarities",
    "zero_classifier",
]
