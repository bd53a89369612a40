"""One encoder per file: from a batch (N, ...) to time first (T, N, C, H, W)."""
