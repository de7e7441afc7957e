"""Support for training runs: the workdir, checkpoints, storage, processes, signals, metric files and parallelism."""
