"""align_uniform: a pretext task for clvr-bench."""
