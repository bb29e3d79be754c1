"""From the tensors of an artefact back to networks: the architecture built, cut, compared, and only then filled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from structured_ensembles import implicit
from structured_ensembles.artefact.record import Record
from structured_ensembles.channels import kinds
from structured_ensembles.channels.extraction import extract
from structured_ensembles.errors import ArtefactError
from structured_ensembles.files.plain import require
from structured_ensembles.networks import Given, given
from structured_ensembles.networks.modules import draw
from structured_ensembles.types import Architecture, Cut, Group, Side

_LARGEST_RATIO, _ALWAYS_ALLOWED = 1000, 2**26
"""A file may ask for a base network of so many times its own elements, or else of so many parameters (256 MB)."""
_SHOWN = 5


def restore(
    record: Record, tensors: Sequence[Mapping[str, Tensor]], architecture: Given | None = None
) -> list[nn.Module]:
    """Build the members again: the architecture once, cut to what each member keeps, and the tensors copied in.

    Args:
        record: What `read` returned.
        tensors: One ``state_dict`` per member; every name, shape and type is checked before any is assigned.
        architecture: Takes the place of the record's network.

    Returns:
        M networks in evaluation mode on the CPU, with memory of their own. Random generators are left as they were.

    Raises:
        ArtefactError: There is no architecture, it cannot be built, or is not the one that they were cut from.
    """
    given = len(tensors)
    require(given == record.networks, f"{given} members were given, and the record has {record.networks}.")
    base = _base(record, tensors, architecture)
    _refuse(list(_misfits(base, record.groups)))
    members = [extract(base, record.groups, channels) for channels in record.channels or [{}] * record.networks]
    pairs = list(zip(members, tensors, strict=True))
    _refuse(
        [f"member {at}, {line}" for at, pair in enumerate(pairs) for line in differences(pair[0].state_dict(), pair[1])]
    )
    for member, state in pairs:
        _load(member, state)
    return members


def _base(record: Record, tensors: Sequence[Mapping[str, Tensor]], architecture: Given | None) -> nn.Module:
    """The uncut network, from the caller's architecture or else from the registry by the record's name."""
    if architecture is not None:
        # What fails in here is the caller's, and told as it is.
        own = draw(_modules_of(given.architecture(architecture)), 0)
        if record.form is None:
            return own
        failure = f"the architecture cannot be made to answer {record.members} times, as {record.form.name!r}"
        return _built(lambda: own, record, tensors, failure, "Pass the one that the members were trained with")
    if record.network is None:
        raise ArtefactError(
            "its architecture has no name: pass it, as in load(path, architecture=MyNet). The command can only use one "
            "that is registered by name (networks.register, and --plugin FILE.py)"
        )
    failure = f"its network {record.network.name!r} cannot be built"
    return _built(record.network, record, tensors, failure, "If you have the architecture, pass it")


def _built(
    source: Given, record: Record, tensors: Sequence[Mapping[str, Tensor]], failure: str, remedy: str
) -> nn.Module:
    """What the record asks for, of bounded size; the error says what failed, why, and what to do."""
    held = sum(tensor.numel() for state in tensors for tensor in state.values())
    try:
        with in_proportion(held):
            return draw(lambda: _made(source, record), 0)
    except Exception as error:
        raise ArtefactError(f"{failure} ({error}). {remedy}: load(path, architecture=MyNet).") from error


def _made(source: Given, record: Record) -> nn.Module:
    """The network, in the form that answers M times if the record has one."""
    if record.form is not None:
        return implicit.make(source, record.form, record.members)
    return given.architecture(source)()


def _modules_of(architecture: Architecture) -> Architecture:
    """The architecture, refused when it makes something else."""

    def make() -> nn.Module:
        network = architecture()
        kind = type(network).__name__
        require(isinstance(network, nn.Module), f"the architecture returned a {kind}: it must return an nn.Module.")
        return network

    return make


@contextmanager
def in_proportion(held: int) -> Iterator[None]:
    """Stop the building of a network before it fills the memory: a small file may name a huge one.

    Args:
        held: Elements of all tensors in the file.
    """
    total, parameters = 0, max(_ALWAYS_ALLOWED, _LARGEST_RATIO * held)

    def count(_module: nn.Module, _name: str, parameter: nn.Parameter) -> None:
        nonlocal total
        total += parameter.numel()
        require(total <= parameters, f"it has more than {parameters} parameters, out of proportion to the file")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def _refuse(problems: Sequence[str]) -> None:
    """Raise with the first few problems, if there are any."""
    if problems:
        more = f"\n  ... and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        lines = "".join(f"\n  {problem}" for problem in problems[:_SHOWN])
        raise ArtefactError(
            "the members were cut from another architecture: pass that one, load(path, architecture=MyNet)."
            f"{lines}{more}"
        )


def _misfits(base: nn.Module, groups: Sequence[Group]) -> Iterator[str]:
    """Cuts that cannot be made in the network, one line each."""
    modules = dict(base.named_modules())
    for group in groups:
        for cut in group.cuts:
            module = modules.get(cut.module)
            found = "found no such layer" if module is None else _misfit(module, cut, group.channels)
            if found:
                yield f"{cut.module!r}: expected {group.channels * cut.repeat} channels to cut, {found}"


def _misfit(module: nn.Module, cut: Cut, channels: int) -> str | None:
    """Why ``surgery.cut`` cannot make this cut."""
    if kinds.of(module) is None:
        return f"found {type(module).__name__}"
    if cut.side is Side.IN and not kinds.has_inputs(module):
        return f"found {type(module).__name__}, whose inputs are cut with its outputs"
    width = kinds.width(module, cut.side)
    if cut.offset + channels * cut.repeat > width:
        return f"found {width} and an offset of {cut.offset}"
    unit = width // kinds.convolution_groups(module)
    if kinds.is_grouped(module) and (cut.offset % unit or cut.repeat % unit):
        return f"found a convolution that can only be cut by {unit}"
    return None


def differences(expected: Mapping[str, object], found: Mapping[str, Tensor]) -> Iterator[str]:
    """Tensors that do not fit, one line each. Members may be stored in another precision than they were built in."""
    for name in [*expected, *(name for name in found if name not in expected)]:
        wanted, given = expected.get(name), found.get(name)
        if not _fits(wanted, given):
            yield f"{name[:200]!r}: expected {_described(wanted)}, found {_described(given)}"


def _fits(wanted: object, given: object) -> bool:
    if not isinstance(wanted, Tensor) or not isinstance(given, Tensor) or wanted.shape != given.shape:
        return False
    return wanted.dtype == given.dtype or (wanted.is_floating_point() and given.is_floating_point())


def _described(value: object) -> str:
    if not isinstance(value, Tensor):
        return "nothing" if value is None else f"a {type(value).__name__}"
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"


def _load(member: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy checked tensors in, bit by bit: the member takes their precision first."""
    floating = {tensor.dtype for tensor in state.values() if tensor.is_floating_point()}
    member.cpu()
    if len(floating) == 1:
        member.to(floating.pop())  # also what is not stored, such as the normalisation of the inputs
    for name, tensor in member.state_dict(keep_vars=True).items():
        tensor.data = tensor.data.to(state[name].dtype)
    member.load_state_dict(state, strict=True)
    member.eval()
