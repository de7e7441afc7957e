"""In which feature space are images compared? Pixels, Inception features, and classifiers that score samples."""
