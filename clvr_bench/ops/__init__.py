"""Batched operations on tensors, a family a module: crops, color, geometry, k-NN, health and more. Public."""
