"""Fashion-MNIST (Xiao, Rasul, Vollgraf, 2017, arXiv:1708.07747), split into devices, a cloud's part and the unseen."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fogline_recipes import idx
from fogline_recipes.partition import dirichlet
from fogline_shared.errors import Corrupt, Unavailable
from fogline_shared.recipe import Dataset, FloatArray

VARIABLE = "FOGLINE_FASHION_MNIST"
# Where Debian's package dataset-fashion-mnist puts the files.
DEFAULT = "/usr/share/datasets/fashion-mnist"
SIDE = 28
DEVICES, ALPHA = 20, 0.5
# Labelled images on all devices together, and at the cloud. All others of the training file have no label there.
LABELLED, HOLDOUT = 2000, 1000


def device(number: int) -> Dataset:
    """One device's labelled images. Raises like :func:`holdout`."""
    return _labelled(_parts()[str(number)])


def holdout() -> Dataset:
    """The cloud's labelled images. Raises Unavailable ``no_dataset``, Corrupt ``bad_dataset``."""
    return _labelled(_parts()["holdout"])


def transfer() -> FloatArray:
    """The cloud's images without labels, (n, 1, 28, 28) grey values 0 to 255. Raises like :func:`holdout`."""
    return _grey(_file("train-images-idx3-ubyte")[_parts()["transfer"]])


def unseen() -> Dataset:
    """The ten thousand test images. Raises like :func:`holdout`."""
    x, y = _file("t10k-images-idx3-ubyte"), _file("t10k-labels-idx1-ubyte")
    return Dataset(x=_grey(x), y=y.astype(np.int64))


@cache
def _parts() -> Mapping[str, NDArray[np.int64]]:
    """Rows of the training file by part: ``0`` … of the devices, ``holdout``, ``transfer``."""
    y = _file("train-labels-idx1-ubyte")
    if len(y) <= LABELLED + HOLDOUT or len(y) != len(_file("train-images-idx3-ubyte")):
        raise Corrupt("bad_dataset", f"{len(y)} training labels: too few, or not as many as images")
    rows = np.random.default_rng(0).permutation(len(y))
    fleet, held, rest = np.split(rows, [LABELLED, LABELLED + HOLDOUT])
    shards = dirichlet(y[fleet], DEVICES, alpha=ALPHA, smallest=20)
    return {str(i): fleet[shard] for i, shard in enumerate(shards)} | {"holdout": held, "transfer": rest}


def _labelled(rows: NDArray[np.int64]) -> Dataset:
    x, y = _file("train-images-idx3-ubyte")[rows], _file("train-labels-idx1-ubyte")[rows]
    return Dataset(x=_grey(x), y=y.astype(np.int64))


def _grey(images: NDArray[np.uint8]) -> FloatArray:
    return images[:, None].astype(np.float32)


@cache
def _file(name: str) -> NDArray[np.uint8]:
    folder = os.environ.get(VARIABLE, DEFAULT)
    try:
        array = idx.read(Path(folder), name)
    except Unavailable as error:
        where = "install Debian's dataset-fashion-mnist or set {VARIABLE} to a folder with its four IDX files"
        raise Unavailable("no_dataset", f"{error.message}: {where.format(VARIABLE=VARIABLE)}") from error
    if array.ndim > 1 and array.shape[1:] != (SIDE, SIDE):
        raise Corrupt("bad_dataset", f"{name} holds images of {array.shape[1:]}, not {SIDE} by {SIDE}")
    return array
