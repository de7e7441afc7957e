"""In which space images are compared: pixels, Inception features, classifiers."""
