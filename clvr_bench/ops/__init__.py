"""Batched operations on tensors, a family a module: crops, color, blur, k-NN, logistic regression, health. Public."""
