"""A stream in a file: read back to the bit, going on as if never stopped, and refused in one sentence if it is not."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import torch as safetensors
from torch import nn
from torch.nn.functional import cross_entropy

from structured_ensembles import files
from structured_ensembles.continual import store
from structured_ensembles.continual.learner import ContinualLearner
from structured_ensembles.continual.settings import ContinualSettings, CrossBlock, Norms
from structured_ensembles.errors import ArtefactError, NetworkError, SettingsError
from structured_ensembles.networks import NetworkSpec
from structured_ensembles.search import SearchSettings
from structured_ensembles.training_settings import Optimiser, Schedule, TrainingSettings

from .learners import SHAPE, examples

SETTINGS = ContinualSettings(
    training=TrainingSettings(epochs=2, batch_size=8, learning_rate=0.05, weight_decay=1e-2),
    search=SearchSettings(max_steps=1, batch_size=12),
    keep=0.4,
    held_out=0.25,
)
INPUTS = examples(99).tensors[0]


class Small(nn.Sequential):
    """It can be interrupted after a number of forward passes."""

    left = -1

    def __init__(self, width=8):
        first = [nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.PReLU(width)]
        super().__init__(*first, nn.Conv2d(width, 6, 3), nn.BatchNorm2d(6), nn.ReLU())

    def forward(self, images):
        Small.left -= 1
        if Small.left == 0:
            raise KeyboardInterrupt
        return super().forward(images)


def looped(taught, tasks):
    for seed in tasks:
        data = examples(seed, classes=2 + seed % 2)
        with taught.task(data, name=f"täsk {seed}") as network, torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            optimiser = torch.optim.Adam(network.parameters(), lr=1e-2, weight_decay=1e-2)
            for _ in range(3):
                optimiser.zero_grad()
                cross_entropy(network(data.tensors[0]), data.tensors[1]).backward()
                optimiser.step()
    return taught


def made(**changes):
    return ContinualLearner(Small, settings=replace(SETTINGS, **changes), seed=3)


def said(taught):
    """Everything that a user can ask for."""
    found = [taught.predict(INPUTS, task=task).probabilities for task in range(len(taught.tasks))]
    return [*found, taught.predict(INPUTS).scores] if found else []


def same(first, second):
    return len(first) == len(second) and all(map(torch.equal, first, second))


def grown(**changes):
    return looped(made(keep=1.0, exhausted="expand", **changes), range(3))


STREAMS = {
    "nothing": made,
    "two": lambda: looped(made(), range(2)),
    "norms": lambda: looped(made(norms=Norms.TASK), range(2)),
    "frozen": lambda: looped(made(cross_block=CrossBlock.FROZEN), range(2)),
    "grown": grown,
    "grown norms": lambda: grown(norms=Norms.TASK),
    "grown heads": lambda: grown(head="published"),
}


# --- round trips ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_is_read_back_to_the_bit(kind, tmp_path):
    taught = STREAMS[kind]()
    taught.save(tmp_path / "a")
    generator = torch.get_rng_state()
    read = ContinualLearner.load(tmp_path / "a", Small)
    assert torch.equal(torch.get_rng_state(), generator)
    assert same(said(taught), said(read))
    read.check_forgetting()
    assert (read.settings, read.seed, read.notices) == (taught.settings, taught.seed, taught.notices)
    assert [(task.name, task.classes) for task in read.tasks] == [(task.name, task.classes) for task in taught.tasks]
    assert (read.size(), read.capacity()) == (taught.size(), taught.capacity())
    assert read.state.groups == taught.state.groups
    read.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("kind", STREAMS)
def test_it_goes_on_as_if_it_had_never_stopped(kind, tmp_path):
    taught = STREAMS[kind]()
    taught.save(tmp_path / "a")
    read = ContinualLearner.load(tmp_path / "a", Small)
    for learner, name in [(taught, "on"), (read, "again")]:
        looped(learner, [5])
        learner.save(tmp_path / name)
    assert (tmp_path / "on").read_bytes() == (tmp_path / "again").read_bytes()
    read.check_forgetting()


def test_learning_after_loading_is_learning_without_a_stop(tmp_path):
    stopped, through = made(), made()
    for seed in range(3):
        through.learn(examples(seed))
        stopped.learn(examples(seed))
        stopped.save(tmp_path / "stopped")
        stopped = ContinualLearner.load(tmp_path / "stopped", Small)
    through.save(tmp_path / "through")
    assert (tmp_path / "stopped").read_bytes() == (tmp_path / "through").read_bytes()


def test_a_named_backbone_needs_not_be_passed(tmp_path):
    spec = NetworkSpec("mlp", SHAPE, 2, {"width": 8, "depth": 1}, mean=(0.5,), std=(0.25,))
    taught = looped(ContinualLearner(spec, settings=SETTINGS), range(2))
    taught.save(tmp_path / "a")
    read = ContinualLearner.load(tmp_path / "a")
    assert same(said(taught), said(read))
    read.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_all_settings_are_read_back(tmp_path):
    training = TrainingSettings(
        optimiser=Optimiser.ADAMW, schedule=Schedule.MULTISTEP, milestones=(2, 5), max_steps=7, learning_rate=0.1 + 0.2
    )
    taught = made(training=training, rank_batches=3, capacity="fixed", channels=2, threshold_over="all", norms="task")
    taught.save(tmp_path / "a")
    assert ContinualLearner.load(tmp_path / "a", Small).settings == taught.settings


def test_any_safetensors_reader_opens_it(tmp_path):
    taught = looped(made(), range(1))
    taught.save(tmp_path / "a")
    tensors = safetensors.load_file(tmp_path / "a")
    assert torch.equal(tensors["backbone.0.weight"], taught.state.backbone[0].weight)
    assert torch.equal(tensors["owners.backbone.0"], taught.state.owners["backbone.0"])


# --- a directory ----------------------------------------------------------------------------------------------------


def test_a_stream_that_is_killed_in_the_middle_of_a_task_goes_on_there(tmp_path):
    through = made()
    for seed in range(3):
        through.learn(examples(seed))

    def begun():
        return ContinualLearner(Small, settings=SETTINGS, seed=3, directory=tmp_path)

    killed = begun()
    killed.learn(examples(0))
    Small.left = 15  # after the search, in the second epoch
    with pytest.raises(KeyboardInterrupt):
        killed.learn(examples(1))
    assert len(killed.tasks) == 1
    assert (tmp_path / "task-1" / "training.ckpt").exists()
    again = begun()
    assert len(again.tasks) == 1
    assert same(said(killed), said(again))
    for seed in range(len(again.tasks), 3):
        again.learn(examples(seed))
    through.save(tmp_path / "through")
    assert (tmp_path / store.STREAM).read_bytes() == (tmp_path / "through").read_bytes()


def test_a_directory_keeps_what_loops_of_ones_own_have_taught(tmp_path):
    taught = ContinualLearner(Small, settings=SETTINGS, directory=tmp_path / "new")
    looped(taught, range(2))
    again = ContinualLearner(Small, settings=SETTINGS, directory=tmp_path / "new")
    assert same(said(taught), said(again))


def test_a_directory_of_another_stream_is_refused(tmp_path):
    looped(made(), [0]).save(tmp_path / store.STREAM)
    for seed, other, message in (
        (4, SETTINGS, "holds a stream of seed 3: take the same"),
        (3, replace(SETTINGS, norms=Norms.TASK), "holds a stream of seed 3, norms owner: take the same"),
    ):
        with pytest.raises(SettingsError, match=message):
            ContinualLearner(Small, settings=other, seed=seed, directory=tmp_path)
    with pytest.raises(ArtefactError, match="another backbone"):
        ContinualLearner(lambda: Small(9), settings=SETTINGS, seed=3, directory=tmp_path)


def test_what_no_learned_task_depends_on_may_change(tmp_path):
    full = replace(SETTINGS, keep=1.0, exhausted="error")
    looped(ContinualLearner(Small, settings=full, directory=tmp_path), [0])
    with pytest.raises(SettingsError, match="exhausted expand"):
        looped(ContinualLearner(Small, settings=full, directory=tmp_path), [1])
    again = ContinualLearner(Small, settings=replace(full, exhausted="expand"), directory=tmp_path)
    assert len(looped(again, [1]).tasks) == 2
    again.check_forgetting()


class Shared(nn.Sequential):
    """One constant in two places."""

    def __init__(self, activation=nn.ReLU):
        super().__init__(nn.Conv2d(1, 8, 3), activation(), nn.Conv2d(8, 6, 3))
        constant = torch.ones(3)
        self[0].register_buffer("constant", constant)
        self[2].register_buffer("constant", constant)


def test_buffers_that_modules_share_are_saved_and_counted_once_each(tmp_path):
    taught = looped(ContinualLearner(Shared, settings=SETTINGS), [0])
    taught.save(tmp_path / "a")
    assert same(said(taught), said(ContinualLearner.load(tmp_path / "a", Shared)))
    assert {name for name in taught.served()["shared"] if name.endswith("constant")} == {
        "backbone.0.constant",
        "backbone.2.constant",
    }


def test_a_backbone_of_the_same_shapes_that_computes_something_else_is_refused(tmp_path):
    looped(ContinualLearner(Shared, settings=SETTINGS), [0]).save(tmp_path / "a")
    with pytest.raises(ArtefactError, match="another backbone, or changed since: task 'täsk 0' gives other answers"):
        ContinualLearner.load(tmp_path / "a", lambda: Shared(nn.Tanh))


# --- writing --------------------------------------------------------------------------------------------------------


def test_a_stream_replaces_a_stream_and_nothing_else(tmp_path):
    taught = made()
    taught.save(tmp_path / "new" / "a")
    looped(taught, [0])
    taught.save(tmp_path / "new" / "a")
    assert len(ContinualLearner.load(tmp_path / "new" / "a", Small).tasks) == 1
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(ArtefactError, match=r"thesis\.txt is something else than a stream: choose another name"):
        taught.save(tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text() == "all of it"


def test_what_cannot_be_written_leaves_the_stream_that_was_there(tmp_path, monkeypatch):
    taught = looped(made(), [0])
    taught.save(tmp_path / "a")
    before = (tmp_path / "a").read_bytes()

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    looped(taught, [1])
    with pytest.raises(ArtefactError, match=r"cannot be written \(No space left on device\): check that you may write"):
        taught.save(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


# --- files that are refused -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("streams") / "a"
    looped(made(), range(2)).save(path)
    return path


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_byte_is_noticed(saved, data):
    content = bytearray(saved.read_bytes())
    at = data.draw(st.one_of(st.integers(0, 600), st.integers(0, len(content) - 1)))
    content[at] ^= data.draw(st.integers(1, 255))
    path = saved.with_name("changed")
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match="changed"):
        ContinualLearner.load(path, Small)


@settings(max_examples=30)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_that_is_cut_short_is_noticed(saved, share):
    content = saved.read_bytes()
    path = saved.with_name("short")
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ArtefactError, match="short"):
        ContinualLearner.load(path, Small)


def test_files_that_are_something_else(tmp_path):
    (tmp_path / "pickle").write_bytes(pickle.dumps(exit))
    safetensors.save_file({"a": torch.zeros(3)}, tmp_path / "other", {"format": "pt"})
    (tmp_path / "empty").touch()
    for name in ("pickle", "other", "empty"):
        with pytest.raises(ArtefactError, match=f"{name}: is not a stream of tasks, or damaged"):
            ContinualLearner.load(tmp_path / name, Small)
    with pytest.raises(ArtefactError, match="there is no such file"):
        ContinualLearner.load(tmp_path / "none", Small)
    with pytest.raises(ArtefactError, match="is not a regular file"):
        ContinualLearner.load(tmp_path, Small)


def forged(saved, change, tensors=None):
    """The file with another record, and a digest that matches it."""
    size = int.from_bytes(saved.read_bytes()[:8], "little")
    header = json.loads(saved.read_bytes()[8 : 8 + size])
    value = json.loads(header["__metadata__"]["structured_ensembles_stream"])
    change(value)
    held = {**safetensors.load_file(saved), **(tensors or {})}
    value["sha256"] = store._digest(value["record"], held)
    path = saved.with_name("forged")
    text = json.dumps(value, separators=(",", ":"))
    path.write_bytes(safetensors.save(held, {"structured_ensembles_stream": text}))
    return path


def _put(*path, to):
    def change(value):
        for key in path[:-1]:
            value = value[key]
        value[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_put("version", to=2), r"newer version than this structured-ensembles reads \(1\): update it"),
        (_put("record", "settings", "keep", to=7), "its settings are not those of a stream .keep 7 is outside"),
        (_put("record", "settings", "keep", to=[]), "its settings are not those of a stream"),
        (_put("record", "settings", "colour", to="red"), "unknown settings colour"),
        (_put("record", "settings", "training", to=None), "its settings are not those of a stream"),
        (_put("record", "seed", to="x"), "its settings are not those of a stream"),
        (_put("record", "tasks", to=7), "the stream is not one of this library"),
        (_put("record", "tasks", 0, to={}), "a task must be a JSON object with exactly the keys name, classes"),
        (_put("record", "tasks", 0, "classes", to=["a"] * 10**6), "the logits of task 0 are not those of its classes"),
        (_put("record", "tasks", 0, "temperature", to="hot"), "the stream is not one of this library"),
        (_put("record", "tasks", 0, "widths", to={"backbone.0": 9}), "task 0 has other widths than"),
        (_put("record", "widths", "backbone.0", to=10**9), "the stream has other owners than channels"),
        (_put("record", "widths", to={}), "its groups of channels are {}, and those of this one"),
        (_put("record", "surplus", to=1), "its record must be a JSON object with exactly the keys"),
        (_put("surplus", to=1), "its text must be a JSON object with exactly the keys"),
    ],
)
def test_records_that_nobody_wrote(saved, change, message):
    with pytest.raises(ArtefactError, match=message):
        ContinualLearner.load(forged(saved, change), Small)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"owners.backbone.0": torch.full((8,), 2)}, "owners of 'backbone.0': found tasks that were not learned"),
        ({"owners.backbone.0": torch.full((8,), -2)}, "owners of 'backbone.0': found tasks that were not learned"),
        ({"owners.backbone.0": torch.zeros(8)}, "owners.backbone.0': expected int64 .8,., found float32"),
        ({"heads.0.2.weight": torch.zeros(2, 7)}, "heads.0.2.weight': expected float32 .2, 6., found float32 .2, 7."),
        ({"heads.9.2.weight": torch.zeros(2, 6)}, "heads.9.2.weight': expected nothing, found"),
        ({"norms.0.backbone.1.weight": torch.zeros(8)}, "norms.0.backbone.1.weight': expected nothing"),
        ({"tasks.0.precision": torch.zeros(1, 1)}, "the profile of task 0 has impossible shapes"),
    ],
)
def test_tensors_that_nobody_wrote(saved, tensors, message):
    with pytest.raises(ArtefactError, match=message):
        ContinualLearner.load(forged(saved, lambda _: None, tensors), Small)


def test_a_huge_network_is_not_built(tmp_path):
    spec = NetworkSpec("mlp", SHAPE, 2, {"width": 8, "depth": 1})
    looped(ContinualLearner(spec, settings=SETTINGS), [0]).save(tmp_path / "a")
    for arguments, message in [
        ({"width": 4096, "depth": 8}, r"cannot be built \(it has more than \d+ parameters, out of proportion"),
        ({"width": 16384}, r"cannot be built \(width must be a whole number"),
    ]:
        change = _put("record", "network", "arguments", to=arguments)
        with pytest.raises(ArtefactError, match=message):
            ContinualLearner.load(forged(tmp_path / "a", change))


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (None, r"not one that the library knows by name: pass it, as in load\(path, backbone=MyNet\)"),
        (lambda: Small(9), "its groups of channels are .*'backbone.0': 8.*, and those of this one .*'backbone.0': 9"),
        (lambda: nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 6, 3)), "another backbone"),
        (lambda: nn.Conv2d(3, 8, 3), "another backbone: the backbone fails on inputs"),
        (lambda: Small().double(), "another backbone"),
    ],
)
def test_another_backbone_is_refused(saved, backbone, message):
    with pytest.raises(ArtefactError, match=message):
        ContinualLearner.load(saved, backbone)


def test_what_was_changed_in_a_file_with_a_right_digest_is_still_caught(saved):
    weight = safetensors.load_file(saved)["backbone.0.weight"]
    owner = safetensors.load_file(saved)["owners.backbone.0"]
    row = int((owner == 0).nonzero()[0])
    weight[row] *= 1 + 1e-6
    read = ContinualLearner.load(forged(saved, lambda _: None, {"backbone.0.weight": weight}), Small)
    with pytest.raises(NetworkError, match=r"backbone\.0\.weight of task 0"):
        read.check_forgetting()
