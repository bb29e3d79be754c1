"""What a fit refuses before any long work: networks that cannot learn from the data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from structured_ensembles.errors import DataError, NetworkError, StructensError, first_line
from structured_ensembles.networks import NetworkSpec
from structured_ensembles.networks.modules import in_mode

_SUM = 1e-3
"""How far from 1 the sum of probabilities may be, in half precision too."""


def check_output(network: nn.Module, example: Tensor, classes: int) -> None:
    """Refuse a network that cannot classify these examples.

    Raises:
        NetworkError: It fails on them, or returns something else than logits.
        DataError: It has another number of outputs than there are classes.
    """
    network.eval()
    output = _output(network, example)
    if isinstance(network, torch.jit.ScriptModule):
        raise NetworkError("a scripted network cannot be changed or trained anew: give the module that it was made of")
    if output.shape[1] != classes:
        raise DataError(
            f"the network has {output.shape[1]} outputs but there are {classes} classes: give it one output per class, "
            "number the classes from 0 on, or name them with classes=[...]"
        )


def check_training(network: nn.Module, example: Tensor) -> None:
    """Refuse a network that returns something else than logits when it is trained; its batch statistics are used up.

    Raises:
        NetworkError: It does, or it fails.
    """
    network.train()
    with torch.random.fork_rng(devices=[]):  # what dropout draws here, training must not miss
        _output(network, example)


def _output(network: nn.Module, example: Tensor) -> Tensor:
    """(B, K), logits."""
    when = " in training mode" if network.training else ""
    try:
        with torch.no_grad():
            output = network(example)
    except Exception as error:
        kind = str(example.dtype).removeprefix("torch.")
        msg = f"the network fails{when} on inputs of shape {tuple(example.shape)} and type {kind}: {first_line(error)}"
        if example.dtype is torch.float64:
            msg += ". Networks take float32 as a rule: convert the inputs with .float()"
        raise NetworkError(msg) from error
    if not isinstance(output, Tensor) or output.dim() != 2 or len(output) != len(example):
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        remedy = ". Networks with auxiliary outputs can often do without, as by aux_logits=False" if when else ""
        raise NetworkError(
            f"the network's output{when} must be logits of shape (B, K) = ({len(example)}, K), but is {got}{remedy}"
        )
    if output.shape[1] > 1 and bool((output >= 0).all()) and bool(((output.sum(1) - 1).abs() < _SUM).all()):
        raise NetworkError(
            "the network's outputs are probabilities: leave out the softmax at its end, the loss and predict() have one"
        )
    return output


def check_answers(network: nn.Module, method: str, example: Tensor) -> None:
    """Refuse a network that was made to answer M times and cannot.

    Raises:
        NetworkError: Naming the method, and why.
    """
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), in_mode(network, training=False):
            network(example)
    except StructensError:
        raise
    except Exception as error:
        raise NetworkError(
            f"this network cannot be turned into one of {method} ({first_line(error)}): most likely a module reads the "
            "weights of a layer without calling it. Have it call the layer, or take another method"
        ) from error


def check_shape(spec: NetworkSpec | None, example: Tensor) -> None:
    """Refuse examples of another shape than a network was asked for with.

    Raises:
        DataError: Naming both.
    """
    if spec is not None and tuple(spec.input_shape) != tuple(example.shape[1:]):
        raise DataError(
            f"the network was asked for with inputs {tuple(spec.input_shape)}, but the examples have "
            f"{tuple(example.shape[1:])}: ask for it with the shape of the examples"
        )
