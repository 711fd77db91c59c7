"""From a trained fold to something that segments scans: an exported SavedModel and a predictor for whole scans."""

from doubleunet_bs.inference.predictor import Prediction, Predictor

__all__ = ["Prediction", "Predictor"]
