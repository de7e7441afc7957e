"""Data sets: sources, image decoding, the cache, batches and the 2-D toy densities."""
