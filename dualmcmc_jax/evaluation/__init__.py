"""Samples, figures and numbers from a trained model."""
