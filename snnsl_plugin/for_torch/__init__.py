"""Pruners that need no library beside torch: those of torch.nn.utils.prune, and any that a user writes or wraps."""
