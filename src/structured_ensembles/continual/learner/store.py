"""A stream of tasks in one safetensors file: written whole or not at all, and never trusted when read.

The file has one entry of metadata, a text in JSON: the version of the format, a digest and a record. The digest is the
SHA-256 of the record and of every tensor with its name, type and shape. Any safetensors reader opens the file.

Groups of channels are not stored: they are found again in a fresh backbone, as they were before the first task.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor, nn

from structured_ensembles.artefact.restoring import differences, in_proportion
from structured_ensembles.continual.learner import ownership, units
from structured_ensembles.continual.learner.backbones import features_of
from structured_ensembles.continual.learner.expand import widened
from structured_ensembles.continual.learner.heads import TaskNetwork, make_head
from structured_ensembles.continual.learner.state import Profile, State, TaskRecord, answers, widths_of
from structured_ensembles.errors import ArtefactError, SettingsError, StructensError
from structured_ensembles.files.plain import compact, is_a, object_of, parsed, require
from structured_ensembles.files.sealed import LENGTH, beginning, metadata, reading, writing
from structured_ensembles.files.whole import write_whole
from structured_ensembles.networks import Given, NetworkSpec
from structured_ensembles.options.choices import Norms, Score
from structured_ensembles.options.streams import ContinualSettings, from_json

VERSION = 1

STREAM = "stream.safetensors"
"""What the file is called in the directory of a learner."""

_KEY = "structured_ensembles_stream"
_VERSION = re.compile(r'\{"version":(\d{1,9}),')
"""How the text of every version begins, this one and later ones."""
_RECORD = ("seed", "settings", "network", "widths", "notices", "tasks")
_TASK = ("name", "classes", "fingerprint", "held_out_accuracy", "digests", "temperature", "widths")
_SHOWN = 5


@dataclass(frozen=True, eq=False)
class File:
    """What was read from a file.

    Attributes:
        settings: Of the stream.
        seed: Of the stream.
        notices: Of the stream.
        record: The rest of the record, whose values nobody has checked.
        tensors: By name.
    """

    settings: ContinualSettings
    seed: int
    notices: tuple[str, ...]
    record: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin so, by the rest of their names."""
        return {name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)}


# --- writing --------------------------------------------------------------------------------------------------------


def write(
    path: Path,
    state: State,
    settings: ContinualSettings,
    seed: int,
    *,
    network: NetworkSpec | None = None,
    notices: tuple[str, ...] = (),
) -> None:
    """Write a stream; the same stream gives the same bytes.

    Args:
        path: A new file, or one that a stream was written to before.
        state: What the stream has come to.
        settings: How it is learned.
        seed: Of everything random.
        network: What its backbone is, if the library knows it by name.
        notices: What its user was told.

    Raises:
        ArtefactError: The file is something else than a stream, or cannot be written.
    """
    record = {
        "seed": seed,
        "settings": asdict(settings),
        "network": None if network is None else network.to_json(),
        "widths": widths_of(state.groups),
        "notices": list(notices),
        "tasks": [_task_record(state, task) for task in range(len(state.tasks))],
    }
    # Clones: what two modules of a backbone share would be refused.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in _tensors(state).items()}
    text = compact({"version": VERSION, "sha256": _digest(record, tensors), "record": record})
    with writing(path, "you may write there and that there is space"):
        require(not path.exists() or _is_stream(path), f"{path} is something else than a stream: choose another name.")
        write_whole(path, safetensors.save(tensors, {_KEY: text}))


def _task_record(state: State, task: int) -> dict[str, Any]:
    record = state.tasks[task]
    kept = {name: getattr(record, name) for name in ("name", "fingerprint", "held_out_accuracy")}
    return {
        **kept,
        "classes": list(record.classes),
        "digests": dict(record.digests),
        "temperature": None if record.profile is None else record.profile.temperature,
        "widths": dict(state.widths[task]) if state.widths else None,
    }


def _tensors(state: State) -> dict[str, Tensor]:
    """Everything that is no text."""
    tensors = _of_network(state, state.norms)
    for task, record in enumerate(state.tasks):
        tensors |= {f"tasks.{task}.inputs": record.inputs, f"tasks.{task}.logits": record.logits}
        if record.profile is not None:
            tensors |= {f"tasks.{task}.{name}": getattr(record.profile, name) for name in _PROFILE}
    return tensors


_PROFILE = ("means", "precision", "usual")


def _of_network(state: State, norms: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of the backbone, the owners, the heads and the tasks' own normalisations."""
    tensors = {f"backbone.{name}": tensor for name, tensor in state.backbone.state_dict().items()}
    tensors |= {f"owners.{name}": owner for name, owner in state.owners.items()}
    for task, (head, own) in enumerate(zip(state.heads, norms, strict=True)):
        tensors |= {f"heads.{task}.{name}": tensor for name, tensor in head.state_dict().items()}
        tensors |= {f"norms.{task}.{name}": tensor for name, tensor in own.items()}
    return tensors


def _digest(record: object, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(compact(record).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(compact([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _is_stream(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(LENGTH + len(beginning(_KEY)))[LENGTH:] == beginning(_KEY)


# --- reading --------------------------------------------------------------------------------------------------------


def read(path: Path) -> File:
    """Read a stream; `restored` makes a state of it. Nothing that the file names is imported, run or built.

    Raises:
        ArtefactError: There is no such file, or it is no stream, damaged, cut short or of a newer version.
    """
    with reading(path):
        require(path.is_file(), "is not a regular file: name a stream.")
        require(_is_stream(path), "is not a stream of tasks, or damaged: those are what ContinualLearner.save writes.")
        return _read(path.read_bytes())


def check_unchanged(path: Path | None, tasks: Sequence[TaskRecord]) -> None:
    """Refuse to write over what another learner has learned: the tasks in the file, if there is one, must be these.

    Raises:
        SettingsError: They are not.
        ArtefactError: There is something else than a stream.
    """
    if path is None:
        return
    there = [one["fingerprint"] for one in read(path).record["tasks"]] if path.exists() else []
    if there != [task.fingerprint for task in tasks]:
        raise SettingsError(
            f"{path} has been changed since this learner read it, by another one: make the learner anew, which goes on "
            "with what is there"
        )


def _read(content: bytes) -> File:
    text = str(metadata(content, (_KEY,))[_KEY])
    version = _VERSION.match(text)
    require(
        version is None or int(version[1]) <= VERSION,
        f"has a newer version than this structured-ensembles reads ({VERSION}): update it.",
    )
    value = object_of("its text", parsed(text), ("version", "sha256", "record"))
    try:
        tensors = safetensors.load(content)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ArtefactError(f"is damaged or cut short ({str(error)[:200]}): copy or download it again.") from error
    require(
        _digest(value["record"], tensors) == value["sha256"],
        "is damaged (its SHA-256 does not match): copy or download it again.",
    )
    record = object_of("its record", value["record"], _RECORD)
    try:
        settings, notices = from_json(record["settings"]), tuple(map(str, record["notices"]))
        return File(settings, int(record["seed"]), notices, record, tensors)
    except (TypeError, ValueError, AttributeError, StructensError) as error:
        raise ArtefactError(f"its settings are not those of a stream ({error}).") from error


@contextmanager
def bounded(file: File) -> Iterator[None]:
    """Within the block, what the file asks for is built, and is of bounded size.

    Raises:
        ArtefactError: It is out of proportion to the file, or cannot be built.
    """
    try:
        with in_proportion(sum(tensor.numel() for tensor in file.tensors.values())):
            yield
    except StructensError as error:
        raise ArtefactError(
            f"its network cannot be built ({error}). If you have the backbone, pass it: load(path, backbone=MyNet)."
        ) from error


@contextmanager
def source(file: File, given: Given | None) -> Iterator[Given]:
    """Within the block, what the backbone is built from: what is given, or else what the file says.

    Raises:
        ArtefactError: The file does not know, or says what cannot be built.
    """
    if given is not None:
        yield given
        return
    named = _network(file)
    with bounded(file):
        yield named


def _network(file: File) -> NetworkSpec:
    require(
        file.record["network"] is not None,
        "the stream's backbone is not one that the library knows by name: pass it, as in load(path, backbone=MyNet).",
    )
    try:
        return NetworkSpec.from_json(file.record["network"])
    except StructensError as error:
        raise ArtefactError(str(error)) from error


def restored(file: File, fresh: nn.Module) -> State:
    """The state of a file.

    Args:
        file: What was read.
        fresh: A backbone as the stream began with; it is filled.

    Raises:
        ArtefactError: It is another backbone, or parts of the file contradict each other.
    """
    try:
        tasks = [object_of("a task", task, _TASK) for task in file.record["tasks"]]
        records = tuple(_task(file, number, task) for number, task in enumerate(tasks))
        state = _empty(file, fresh, records, [task["widths"] for task in tasks])
        _refuse(list(_misfits(file, state, records)))
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise ArtefactError(f"the stream is not one of this library ({error}).") from error
    fresh = state.backbone
    fresh.load_state_dict(file.part("backbone."))
    for number, head in enumerate(state.heads):
        head.load_state_dict(file.part(f"heads.{number}."))
    state = replace(
        state,
        owners={name: file.tensors[f"owners.{name}"] for name in state.owners},
        norms=tuple(file.part(f"norms.{number}.") for number in range(len(records))),
        tasks=records,
        widths=tuple(task["widths"] for task in tasks if task["widths"]),
    )
    for task, record in enumerate(records):
        close = torch.allclose(answers(state, task, record.inputs), record.logits, rtol=1e-3, atol=1e-4)
        require(close, f"{_OTHER}, or changed since: task {record.name!r} gives other answers than it gave then.")
    return state


def _task(file: File, number: int, task: Mapping[str, Any]) -> TaskRecord:
    tensors = file.part(f"tasks.{number}.")
    profile = None
    if task["temperature"] is not None:
        profile = Profile(float(task["temperature"]), *(tensors[name] for name in _PROFILE))
        side = profile.means.shape[1]
        fits = profile.precision.shape == (side, side) and profile.usual.shape == (len(Score), 2)
        require(fits, f"the profile of task {number} has impossible shapes.")
    logits, classes = tensors["logits"], tuple(map(str, task["classes"]))
    right = logits.shape == (len(tensors["inputs"]), len(classes))
    require(right, f"the logits of task {number} are not those of its classes.")
    return TaskRecord(
        name=str(task["name"]),
        classes=classes,
        fingerprint=str(task["fingerprint"]),
        held_out_accuracy=task["held_out_accuracy"],
        inputs=tensors["inputs"],
        logits=logits,
        digests=dict(task["digests"]),
        profile=profile,
    )


def _empty(file: File, fresh: nn.Module, records: tuple[TaskRecord, ...], grown: list[Any]) -> State:
    """The state of an untrained backbone that has as many channels and heads as the file.

    It grows as it did in the stream, task by task: how large a head is depends on the channels that there were.
    """
    if not records:
        return State(fresh)
    settings, inputs = file.settings, records[0].inputs
    try:
        groups = units.find(fresh, settings.head, inputs, settings.graph_seconds)
    except StructensError as error:
        raise ArtefactError(f"the stream was learned with another backbone: {error}") from error
    state = State(fresh, groups, ownership.unowned(groups))
    widths, present = {str(name): int(width) for name, width in file.record["widths"].items()}, widths_of(groups)
    same = widths.keys() == present.keys() and all(widths[name] >= width for name, width in present.items())
    require(same, f"{_OTHER}: its groups of channels are {widths}, and those of this one {present}.")
    held = {name: len(file.tensors[f"owners.{name}"]) for name in widths}
    require(held == widths, "the stream has other owners than channels.")
    for number, (task, own) in enumerate(zip(records, grown, strict=True)):
        state = _grown(state, own or present, widths, settings, f"task {number} has")
        with bounded(file):
            head = make_head(settings.head, features_of(state.backbone, inputs), len(task.classes), 0)
        state = replace(state, heads=(*state.heads, head.eval()))
    require(all(grown) or not any(grown), "some tasks have recorded their widths, and some have not.")
    return _grown(state, widths, widths, settings, "the stream has")


def _grown(state: State, widths: Any, most: Mapping[str, int], settings: ContinualSettings, who: str) -> State:  # noqa: ANN401
    """With these widths, which a file says, at most as large as those at its end."""
    present = widths_of(state.groups)
    if widths == present:
        return state
    fits = is_a(widths, dict[str, int]) and widths.keys() == present.keys()
    fits = fits and all(present[name] <= width <= most[name] for name, width in widths.items())
    require(fits and bool(state.heads), f"{who} other widths than the groups of channels can have had.")
    return widened(state, widths, settings.cross_block, 0)


_OTHER = "the stream was learned with another backbone"


def _misfits(file: File, state: State, records: tuple[TaskRecord, ...]) -> Iterator[str]:
    """Tensors that are not what the state has in their places, one line each."""
    own: Mapping[str, Tensor] = {}
    if file.settings.norms is Norms.TASK:
        own = ownership.norm_tensors(TaskNetwork(state.backbone, nn.Identity()))
    expected = _of_network(state, [own] * len(records))
    yield from differences(expected, {name: value for name, value in file.tensors.items() if name[:6] != "tasks."})
    for name in state.owners:
        owner = file.tensors[f"owners.{name}"]
        if int(owner.min()) < ownership.NOBODY or int(owner.max()) >= len(records):
            yield f"owners of {name!r}: found tasks that were not learned"


def _refuse(problems: list[str]) -> None:
    more = f" (and {len(problems) - _SHOWN} more)" if len(problems) > _SHOWN else ""
    require(not problems, f"{_OTHER}: {'; '.join(problems[:_SHOWN])}{more}. Pass that one: load(path, backbone=MyNet).")
