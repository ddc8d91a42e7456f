"""The edge: a device's agent, and :class:`Predictor`, which also works alone in a process of your own."""

from fogline_client.inference.predictor import Predictor
from fogline_client.inference.values import Observation, Prediction

__all__ = ["Observation", "Prediction", "Predictor"]
