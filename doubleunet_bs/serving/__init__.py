"""A trained fold -> a SavedModel with its preparation in the graph, and a package for TensorFlow Serving."""
