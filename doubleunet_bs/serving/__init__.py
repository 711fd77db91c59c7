"""From a trained fold to a SavedModel with its preparation in the graph, and a package for TensorFlow Serving."""
