"""A trained fold or an exported model -> probabilities and masks of whole scans."""

from doubleunet_bs.inference.predictor import Prediction, Predictor

__all__ = ["Prediction", "Predictor"]
