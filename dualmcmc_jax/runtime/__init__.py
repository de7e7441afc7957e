"""What keeps a run alive: its folder, checkpoints, storage, processes, signals and parallelism."""
