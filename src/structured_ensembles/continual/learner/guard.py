"""The guard: whatever trains a network, entries that belong to other tasks are what they were whenever it runs.

Masked gradients are not enough: weight decay and momentum move weights whose gradient is zero. So the entries are put
back before every forward pass. The hooks that do it are copied with the network, as trainers copy it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm
from torch.utils.hooks import RemovableHandle

from structured_ensembles.channels.kinds import BatchNorm
from structured_ensembles.continual.learner.heads import TaskNetwork
from structured_ensembles.continual.learner.ownership import of_backbone, tensors

Masks = Mapping[str, Tensor]
"""By name of a tensor, the entries that may change: bool, broadcast to the tensor. Other tensors may not change."""

Hooked = dict[int, tuple["weakref.ref[Tensor]", RemovableHandle]]
"""By ``id``, the parameters whose gradients are masked."""


@contextmanager
def guarded(network: TaskNetwork, masks: Masks) -> Iterator[None]:
    """Within the block, and in copies that are made in it, the backbone keeps what the masks leave out.

    Args:
        network: A task network; what it holds now is what is kept.
        masks: By name of its tensors.
    """
    kept = {name: tensor.detach().clone() for name, tensor in tensors(network).items()}
    hooked: Hooked = {}
    # Not the whole network: a training loop may call the backbone and the head by themselves.
    hook = network.backbone.register_forward_pre_hook(_restoring(kept, dict(masks), hooked))
    try:
        yield
    finally:
        hook.remove()
        # A network that is trained again and again, task by task, would collect the masks of all of them.
        for _, handle in hooked.values():
            handle.remove()


@contextmanager
def normalised_as_stored(network: nn.Module, masks: Masks) -> Iterator[None]:
    """Within the block, and in copies that are made in it, channels whose statistics may not change are not measured.

    In training mode a batch normalisation layer would measure all of its channels. Those of other tasks are normalised
    as they are in evaluation mode instead, which is how they will be read.

    Args:
        network: A task network; its statistics of now are what is used.
        masks: By name of its tensors.
    """
    with ExitStack() as hooks:
        for name, module in network.named_modules():
            if isinstance(module, BatchNorm) and f"{name}.running_mean" in masks:
                hooks.enter_context(module.register_forward_hook(_keeping(module, masks[f"{name}.running_mean"])))
        yield


def merged(into: nn.Module, trained: nn.Module, masks: Masks) -> None:
    """Copy the entries that may change, and no other, from a trained network.

    Args:
        into: A task network; its backbone is changed in place.
        trained: Another one of the same shapes, on any device.
        masks: By name of their tensors.
    """
    source = tensors(trained)
    for name, tensor in tensors(into).items():
        if name in masks:
            _write(tensor, torch.where(masks[name], source[name].detach().to(tensor), tensor.detach()))


def _restoring(kept: dict[str, Tensor], masks: dict[str, Tensor], hooked: Hooked) -> Callable[..., None]:
    def restore(backbone: nn.Module, _inputs: Any) -> None:  # noqa: ANN401 (torch's own signature)
        for name, tensor in of_backbone(backbone).items():
            # Moved once: the copy that is trained stays on its device.
            before = kept[name] = kept[name].to(tensor.device)
            if name in masks:
                mask = masks[name] = masks[name].to(tensor.device)
                before = torch.where(mask, tensor.detach(), before)
            _write(tensor, before)
            if tensor.requires_grad:
                _mask_gradient(tensor, masks.get(name), hooked)

    return restore


def _mask_gradient(parameter: Tensor, mask: Tensor | None, hooked: Hooked) -> None:
    """Once for each parameter: its number may have belonged to another one that is gone."""
    known = hooked.get(id(parameter))
    if known is None or known[0]() is not parameter:
        handle = parameter.register_hook(_masking(mask))  # type: ignore[no-untyped-call]
        hooked[id(parameter)] = (weakref.ref(parameter), handle)


def _masking(mask: Tensor | None) -> Callable[[Tensor], Tensor]:
    def masked(gradient: Tensor) -> Tensor:
        if mask is None:
            return torch.zeros_like(gradient)
        return gradient.where(mask.to(gradient.device), torch.zeros_like(gradient))

    return masked


def _write(tensor: Tensor, values: Tensor) -> None:
    # Through `data`, which autograd does not watch: two passes before one backward see the same values.
    tensor.data.copy_(values)


def _keeping(norm: BatchNorm, own: Tensor) -> Callable[..., Tensor | None]:
    mean, variance = _copy(norm.running_mean), _copy(norm.running_var)

    def keep(module: BatchNorm, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if not module.training:
            return None
        shape = (1, -1, *[1] * (output.dim() - 2))
        # The copy that is trained may be on another device, or of another type.
        stored = batch_norm(
            inputs[0], _like(mean, module), _like(variance, module), module.weight, module.bias, eps=module.eps
        )
        return output.where(own.to(output.device).view(shape), stored)

    return keep


def _like(statistics: Tensor, norm: BatchNorm) -> Tensor:
    return statistics if norm.running_mean is None else statistics.to(norm.running_mean)


def _copy(statistics: Tensor | None) -> Tensor:
    if statistics is None:
        msg = "a batch normalisation layer without running statistics has nothing to keep"
        raise TypeError(msg)
    return statistics.detach().clone()
