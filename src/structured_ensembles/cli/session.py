"""What `fit` and `demo` share: a run, told as it goes."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from structured_ensembles.cli import configuration
from structured_ensembles.cli.printing import head, line, note, quoted, rejection, results, resuming, say
from structured_ensembles.data import sources as datasets
from structured_ensembles.errors import SettingsError
from structured_ensembles.evaluation.cost import untrained
from structured_ensembles.experiments import run
from structured_ensembles.methods.single import SingleNetwork
from structured_ensembles.methods.structured import StructuredEnsemble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from structured_ensembles.data.sources import ImageData
    from structured_ensembles.methods.fitting import Fittable
    from structured_ensembles.networks.sizes import Cost
    from structured_ensembles.options.plans import Plan

_FILES = (
    ("structured.safetensors", "the ensemble"),
    ("metrics.json", "these numbers, and more"),
    ("learning_curves.png", "how the members learned"),
    ("reliability.png", "how far their confidence can be trusted"),
    ("config.yaml", "every setting; repeat the run with: structens fit --config"),
)


class Session:
    """Everything that a run needs, read and checked before anything is written.

    Attributes:
        plan: What was asked for.
        images: To learn from and to measure on.
        contestants: The methods to fit, in this order.
        whole: What the whole network costs.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.images: ImageData = datasets.load(plan.data, image_size=plan.image_size)
        note(self.images.notices)
        spec = run.network(plan, self.images)
        self.contestants: Sequence[Fittable] = run.contestants(plan, spec)
        self.whole: Cost = untrained(spec, self.images.classes).size()

    def work(
        self,
        folder: Path,
        before: Callable[[Fittable], None] = lambda _: None,
        after: Callable[[Fittable], None] = lambda _: None,
    ) -> dict[str, Any]:
        """Fit, save and measure every method; returns what ``metrics.json`` holds."""
        outcomes = []
        for contestant in self.contestants:
            before(contestant)
            outcomes.append(run.carry_out(contestant, self.images, self.plan.seed, folder))
            note(contestant.notices if isinstance(contestant, StructuredEnsemble) else ())
            after(contestant)
        return run.finish(self.plan, self.images, outcomes, self.whole, folder)


def describe(images: ImageData) -> str:
    """The data in a sentence."""
    channels, height, width = images.input_shape
    colour = {1: "grey", 3: "colour"}.get(channels, f"{channels}-channel")
    return (
        f"{images.name}: {len(images.train):,} training and {len(images.test):,} test images, {colour}, "
        f"{height}x{width} pixels, {len(images.classes)} classes."
    )


def report(metrics: Mapping[str, Any], folder: Path) -> None:
    """The table, what abstaining does, and where to look."""
    results(run.rows(metrics))
    structured = metrics["methods"][StructuredEnsemble.method]
    say(rejection(structured))
    if SingleNetwork.method not in metrics["methods"]:
        say("The whole network was only sized, not trained: --against single would train it.")
    head(f"In {folder}")
    for name, what in _FILES:
        line(f"  {name:<24}{what}")
    artefact = quoted(folder / structured["file"])
    head("Next")
    line(f"  structens predict {artefact} IMAGE...")
    line(f"  structens inspect {artefact}")


@contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """Whoever interrupts is told how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        line(f"\nNothing is lost. Go on with:  {resuming(folder)}")
        raise


def stored(folder: Path) -> Plan:
    """The plan of the run in a folder.

    Raises:
        SettingsError: There is none, or its configuration is damaged.
    """
    path = folder / run.CONFIGURATION
    if not path.exists():
        raise SettingsError(f"there is no run in {folder} to go on with (no {run.CONFIGURATION}): leave out --resume")
    return configuration.plan(configuration.read(path))


def check_same(folder: Path, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Refuse to go on with a run under another configuration.

    Raises:
        SettingsError: Naming what differs.
    """
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    if names:
        changes = ", ".join(f"{name} (was {before.get(name)}, now {after.get(name)})" for name in names)
        raise SettingsError(
            f"the run in {folder} cannot go on with another configuration: {changes}. Leave the options out (--resume "
            "and --out are enough), or start another run with another --out"
        )
