"""What pretext tasks and encoders share: heads and the wrapper around timm's networks. Public, for every plugin."""

from clvr_bench.toolbox.heads import mlp as mlp
from clvr_bench.toolbox.timm_encoder import TimmEncoder as TimmEncoder

__all__ = ["TimmEncoder", "mlp"]
