"""Ready-made weights: read without running anything, and put where an encoder has them; what does not fit is told."""

from clvr_bench.toolbox.weights.formats import NORMALIZATIONS as NORMALIZATIONS
from clvr_bench.toolbox.weights.formats import WEIGHT_FORMATS as WEIGHT_FORMATS
from clvr_bench.toolbox.weights.formats import Normalization as Normalization
from clvr_bench.toolbox.weights.formats import WeightFormat as WeightFormat
from clvr_bench.toolbox.weights.matching import Match as Match
from clvr_bench.toolbox.weights.matching import match as match
from clvr_bench.toolbox.weights.reading import read_tensors as read_tensors

__all__ = ["NORMALIZATIONS", "WEIGHT_FORMATS", "Match", "Normalization", "WeightFormat", "match", "read_tensors"]
