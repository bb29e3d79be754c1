"""An ensemble that is ready: M networks that answer together, one file, one size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from structured_ensembles.artefact import file as artefact
from structured_ensembles.artefact.file import Record
from structured_ensembles.errors import ArtefactError, DataError, SettingsError, first_line
from structured_ensembles.networks import Given, modules, sizes
from structured_ensembles.networks.sizes import Cost
from structured_ensembles.options.choices import Combine
from structured_ensembles.prediction.temperature import temper
from structured_ensembles.prediction.uncertainty import predict_from_logits, require_finite
from structured_ensembles.types import Prediction


class Ensemble(nn.Module):
    """M networks that answer together: an ordinary module, whatever it came from.

    Args:
        members: The networks, each mapping inputs (B, ...) to logits (B, K); or one that gives (M, B, K) (`implicit`).
        record: What is saved beside their tensors.
    """

    def __init__(self, members: Iterable[nn.Module] = (), record: Record | None = None) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self._record = record

    @property
    def record(self) -> Record:
        """What is saved beside the members' tensors.

        Raises:
            SettingsError: The ensemble has not been fitted.
        """
        if self._record is None:
            raise SettingsError("this ensemble has no members yet: call fit(train_loader) first, or load one")
        return self._record

    def check_fitted(self) -> None:
        """Raise the error of `record` if there are no members."""
        _ = self.record

    def forward(self, inputs: Tensor) -> Tensor:
        """The members' logits.

        Args:
            inputs: (B, ...), as the networks take them.

        Returns:
            (M, B, K).
        """
        self.check_fitted()
        answers = [member(inputs) for member in self.members]
        return torch.cat([logits if logits.dim() == 3 else logits.unsqueeze(0) for logits in answers])

    @torch.no_grad()
    def predict(self, inputs: Tensor, *, combine: Combine | None = None, batch_size: int = 256) -> Prediction:
        """The combined prediction and how sure it is, in evaluation mode; see `calibrated` for one with a temperature.

        Args:
            inputs: (B, ...), on any device.
            combine: How outputs are combined; None takes what the ensemble was made with.
            batch_size: So many inputs are run at a time.

        Raises:
            SettingsError: There are no inputs, or the ensemble has not been fitted.
        """
        return predict_from_logits(self.logits(inputs, batch_size=batch_size), combine or self.record.combine)

    def calibrated(self, prediction: Prediction) -> Prediction:
        """The prediction with the probabilities of the temperature that was fitted on held-out examples.

        Classes and entropies stay: those say what the members doubt, and the threshold for abstaining is one of them.
        Probabilities are float64, in which near ties stay apart.

        Raises:
            SettingsError: No temperature was fitted.
        """
        temperature: Any = self.record.summary.get("temperature")
        if temperature is None:
            raise SettingsError("no temperature was fitted for this ensemble: fit it with this version of the library")
        return replace(prediction, probabilities=temper(prediction.probabilities.double(), temperature))

    @torch.no_grad()
    def logits(self, inputs: Tensor, *, batch_size: int = 256) -> Tensor:
        """(M, B, K): the members' logits on many inputs, batch by batch, in evaluation mode.

        Args:
            inputs: (B, ...), on any device; an array will do.
            batch_size: So many inputs are run at a time.

        Raises:
            DataError: Inputs are not those of the network, or one holds a NaN or infinite value.
            SettingsError: There are no inputs, or the ensemble has not been fitted.
        """
        if batch_size < 1:
            raise SettingsError(f"batch_size {batch_size} must be at least 1")
        inputs = _checked(inputs, self.record.input_shape)
        first = next(self.parameters())
        # Whole numbers are tokens, or pixels for the network to scale: they are what they are.
        kind = first.dtype if inputs.is_floating_point() else inputs.dtype
        with modules.in_mode(self, training=False), _explained(inputs, self.record.input_shape):
            return torch.cat([self(part.to(first.device, kind)) for part in torch.split(inputs, batch_size)], dim=1)

    def size(self) -> Cost:
        """What the ensemble costs, its file to the byte."""
        stored = artefact.file_bytes([artefact.specs(member.state_dict()) for member in self.members], self.record)
        return replace(_counted(self), bytes=stored)

    def save(self, path: str | Path, *, measurements: Mapping[str, Any] | None = None) -> None:
        """Write the ensemble to one file.

        Args:
            path: Where to; it must not exist.
            measurements: JSON that is stored in the summary beside what fitting left there.

        Raises:
            ArtefactError: The file exists, or the summary is too long.
        """
        record = replace(self.record, summary={**self.record.summary, **(measurements or {})})
        artefact.write(Path(path), [member.state_dict() for member in self.members], record)

    @staticmethod
    def load(path: str | Path, architecture: Given | None = None) -> Ensemble:
        """Read an ensemble back, in evaluation mode; nothing in the file is run.

        Args:
            path: The file.
            architecture: Makes the base network, or is one, if that is not one that the library knows by name.

        Raises:
            ArtefactError: The file is damaged, newer than this library, or of another architecture.
        """
        record, tensors = artefact.read(Path(path))
        try:
            return Ensemble(artefact.restore(record, tensors, architecture), record).eval()
        except ArtefactError as error:
            raise ArtefactError(f"{path}: {error}") from error


def _checked(inputs: object, shape: tuple[int, ...]) -> Tensor:
    """Inputs as a tensor, of which there are some, in a batch and finite."""
    try:
        found = torch.as_tensor(inputs)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"inputs are a {type(inputs).__name__}: pass one tensor or array of shape {_batch(shape)}"
        ) from error
    if found.dim() != 1 + len(shape):
        raise DataError(f"inputs of shape {tuple(found.shape)}: pass a batch of shape {_batch(shape)}")
    if len(found) == 0:
        raise SettingsError("there is nothing to predict: 0 inputs were given")
    require_finite(found)
    return found


@contextmanager
def _explained(inputs: Tensor, shape: tuple[int, ...]) -> Iterator[None]:
    """What is unlike the examples of the training may run all the same; if it does not, it is likely to be why."""
    try:
        yield
    except RuntimeError as error:
        unlike = [] if tuple(inputs.shape[1:]) == shape else [f"of shape {tuple(inputs.shape)}"]
        unlike += [] if inputs.is_floating_point() else [f"of type {inputs.dtype}"]
        if not unlike:
            raise
        raise DataError(
            f"the network fails on inputs {' and '.join(unlike)} ({first_line(error)}): it was trained on inputs of "
            f"shape {_batch(shape)}, and takes what the training gave it"
        ) from error


def _batch(shape: tuple[int, ...]) -> str:
    return f"(B, {', '.join(map(str, shape))})"


def _counted(ensemble: Ensemble) -> Cost:
    example = next(ensemble.parameters()).new_zeros(1, *ensemble.record.input_shape)
    try:
        return sizes.cost(ensemble, example)
    except RuntimeError:
        # A network of tokens takes whole numbers; nothing stored says so.
        return sizes.cost(ensemble, example.long())
