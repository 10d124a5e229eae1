"""What makes a detector smaller: sparsity, the channel graph, pruning, quantisation, distillation."""
