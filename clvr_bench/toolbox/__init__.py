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
from clvr_bench.toolbox.cross_views import cross_view_entropy as cross_view_entropy
from clvr_bench.toolbox.few_labels import labelled_subset as labelled_subset
from clvr_bench.toolbox.few_labels import stratified_folds as stratified_folds
from clvr_bench.toolbox.few_labels import training_part as training_part
from clvr_bench.toolbox.generative import ResidualMLP as ResidualMLP
from clvr_bench.toolbox.generative import can_double_to as can_double_to
from clvr_bench.toolbox.generative import picture_decoder as picture_decoder
from clvr_bench.toolbox.generative import picture_features as picture_features
from clvr_bench.toolbox.generative import picture_generator as picture_generator
from clvr_bench.toolbox.heads import linear_head as linear_head
from clvr_bench.toolbox.heads import mlp as mlp
from clvr_bench.toolbox.heads import normalized_mlp as normalized_mlp
from clvr_bench.toolbox.instances import discriminate_instances as discriminate_instances
from clvr_bench.toolbox.local_features import FeatureMaps as FeatureMaps
from clvr_bench.toolbox.local_features import ResidualEmbedding as ResidualEmbedding
from clvr_bench.toolbox.local_features import no_local_features as no_local_features
from clvr_bench.toolbox.local_features import others_only as others_only
from clvr_bench.toolbox.local_features import own_scores as own_scores
from clvr_bench.toolbox.local_features import place_nce as place_nce
from clvr_bench.toolbox.local_features import place_scores as place_scores
from clvr_bench.toolbox.local_features import place_top1 as place_top1
from clvr_bench.toolbox.local_features import place_vectors as place_vectors
from clvr_bench.toolbox.memory_bank import MemoryBank as MemoryBank
from clvr_bench.toolbox.multi_crop import encode_by_size as encode_by_size
from clvr_bench.toolbox.multi_crop import global_views as global_views
from clvr_bench.toolbox.nce import NCE as NCE
from clvr_bench.toolbox.nce import check_contrast as check_contrast
from clvr_bench.toolbox.options import require as require
from clvr_bench.toolbox.patches import cut_pieces as cut_pieces
from clvr_bench.toolbox.patches import enlarged_side as enlarged_side
from clvr_bench.toolbox.patches import patch_grid as patch_grid
from clvr_bench.toolbox.patches import patchify as patchify
from clvr_bench.toolbox.patches import resized as resized
from clvr_bench.toolbox.patches import tiled as tiled
from clvr_bench.toolbox.predictive_coding import PatchMean as PatchMean
from clvr_bench.toolbox.predictive_coding import encode_grid as encode_grid
from clvr_bench.toolbox.predictive_coding import grouped_info_nce as grouped_info_nce
from clvr_bench.toolbox.predictive_coding import row_context as row_context
from clvr_bench.toolbox.probe import Standardizer as Standardizer
from clvr_bench.toolbox.probe import strongest_best as strongest_best
from clvr_bench.toolbox.puzzles import JigsawBranch as JigsawBranch
from clvr_bench.toolbox.puzzles import TileCut as TileCut
from clvr_bench.toolbox.puzzles import shuffled as shuffled
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
    "FeatureMaps",
    "JigsawBranch",
    "LabelledCrops",
    "Match",
    "MemoryBank",
    "MomentumTarget",
    "PatchMean",
    "PictureFiles",
    "Queue",
    "ResidualEmbedding",
    "ResidualMLP",
    "Schedule",
    "SpectralNorm",
    "SplitBatchNorm",
    "Standardizer",
    "TileCut",
    "TimmEncoder",
    "Training",
    "WeightFormat",
    "can_double_to",
    "center_outputs",
    "check_contrast",
    "check_queue",
    "cross_view_entropy",
    "cut_pieces",
    "discriminate_instances",
    "encode_by_size",
    "encode_grid",
    "enlarged_side",
    "global_views",
    "grouped_info_nce",
    "growing_momentum",
    "labelled_subset",
    "linear_head",
    "match",
    "mlp",
    "no_local_features",
    "normalized_mlp",
    "others_only",
    "own_scores",
    "patch_grid",
    "patchify",
    "picture_decoder",
    "picture_features",
    "picture_generator",
    "place_nce",
    "place_scores",
    "place_top1",
    "place_vectors",
    "read_tensors",
    "require",
    "resized",
    "row_context",
    "shuffled",
    "split_batch_norm",
    "stratified_folds",
    "strongest_best",
    "tiled",
    "train_classifier",
    "training_part",
    "view_similarities",
    "zero_classifier",
]
