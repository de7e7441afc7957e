"""In which feature space are images compared? Pixels and Inception features; also classifiers that score samples."""
