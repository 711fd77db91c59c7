"""A run on disk: its experiment, its cohorts and folds, its locks, and what can be resumed. Needs no TensorFlow."""
