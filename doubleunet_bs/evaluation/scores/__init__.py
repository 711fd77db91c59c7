"""Figures from masks and probabilities: pixels, lesions, curves, patients, and their distributions."""
