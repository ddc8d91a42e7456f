"""Run in the newcomer's environment: what the released file scores on unseen digits, and what devices reach alone."""

import json
import sys
from dataclasses import replace

import numpy as np
import onnxruntime
import torch
from fogline_digits import PENS, Digits


def released(path: str) -> float:
    """Accuracy of an ONNX file on raw inputs, through ONNX Runtime alone."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    unseen = Digits().unseen()
    (logits,) = session.run(None, {session.get_inputs()[0].name: unseen.x})
    return float((logits.argmax(1) == unseen.y).mean())


def alone(pen: int) -> float:
    """Accuracy of a student trained by one device on its own data, as many epochs as all the rounds have."""
    recipe = Digits()
    data, plan = recipe.device_data({"pen": str(pen)}), recipe.plans["student"]
    standardisation = recipe.channel_sums(data).standardisation()
    model = recipe.model("student", seed=0)
    recipe.train(model, data, standardisation, replace(plan, epochs=plan.epochs * recipe.rounds["student"]))
    return recipe.evaluate(model, recipe.unseen(), standardisation).accuracy


torch.set_num_threads(1)
print(json.dumps({"released": released(sys.argv[1]), "alone": float(np.mean([alone(pen) for pen in PENS]))}))
