"""What the inputs and outputs of an exported model are called. Imports nothing, for clients without TensorFlow."""

PROBABILITY, MASK = "metastatic_probability", "mask"
ENDPOINT, INPUT = "serving_default", "image"
