"""Every choice by name: enumerations whose members say what they mean."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from structured_ensembles.errors import unknown

if TYPE_CHECKING:
    from typing_extensions import Self


class Choice(str, Enum):
    """Base of the choices: a member is its own string, so that YAML and command lines can name it."""

    def __str__(self) -> str:
        return str(self.value)

    @classmethod
    def named(cls, name: str) -> Self:
        """The choice of a name; a choice itself comes back.

        Raises:
            SettingsError: There is none; the nearest name is proposed.
        """
        known = {str(choice): choice for choice in cls}
        if str(name) not in known:
            raise unknown(cls.__name__.lower(), str(name), known)
        return known[str(name)]


class Scope(Choice):
    """Which channels may be scaled."""

    PRIVATE = "private"
    """Output channels of a single layer, which nothing ties to another layer's (published)."""
    COUPLED = "coupled"
    """Also channels tied by an addition, a concatenation or a grouped convolution: they share one score."""


class Placement(Choice):
    """Where a channel is multiplied by its scale factor."""

    AFTER_NORM = "after_norm"
    """After the normalisation that follows the layer: at zero the channel is off."""
    BEFORE_NORM = "before_norm"
    """On the layer's own output (published)."""


class Combine(Choice):
    """How the members' outputs become one prediction."""

    PROBABILITIES = "probabilities"
    """Mean of the members' probabilities: the mixture."""
    LOGITS = "logits"
    """Softmax of the members' mean logits (published)."""


class Reduce(Choice):
    """How the gradients of the batches become one importance."""

    MEAN = "mean"
    """Their mean (published default)."""
    MEDIAN = "median"
    """Their median; the lower one of two."""
    MAX = "max"
    """The largest."""


class Parametrisation(Choice):
    """How scores are parametrised."""

    FREE = "free"
    """The scale factor itself, started from N(0, 1)."""
    CONSTANT = "constant"
    """The scale factor itself, started at 1: the members start alike."""
    NORMAL = "normal"
    """A normal distribution, started at mean 0 and deviation 1."""
    LAPLACE = "laplace"
    """A Laplace distribution, started at location 0 and scale 1."""
    BETA = "beta"
    """A Beta distribution, both parameters started from U(1, 2)."""
    GAMMA = "gamma"
    """A Gamma distribution, started at shape 1 and rate 2."""
    EXPONENTIAL = "exponential"
    """An exponential distribution, started at rate 1."""


class Rule(Choice):
    """In what order channels are kept."""

    PER_COST = "per_cost"
    """All of a member's channels together, by importance per byte (or FLOP) that removing the channel saves."""
    GLOBAL = "global"
    """All of a member's channels together, by importance (published)."""
    LOCAL = "local"
    """Within each group, by importance: every group keeps the same share."""
    TAPERED = "tapered"
    """Within each group, by importance: groups keep shares in proportion to given weights (`price.Price.shares`)."""


class Augmentation(Choice):
    """How training images are varied; held-out images never are."""

    NONE = "none"
    """As they are."""
    CROP = "crop"
    """Shifted by up to an eighth of their size (4 pixels of 32), the border black."""
    FLIP = "flip"
    """Mirrored left to right, every second one: never for digits or letters."""
    CROP_FLIP = "crop_flip"
    """Both."""


class HeadKind(Choice):
    """What a head is made of."""

    LINEAR = "linear"
    """Global average pooling of maps, then one linear layer."""
    PUBLISHED = "published"
    """Three linear layers with dropout on the flattened features, however many they are."""


class Family(Choice):
    """Architectures that the published experiments train with the same learning rates."""

    RESNET = "resnet"
    VGG = "vgg"
    OTHER = "other"

    @classmethod
    def of(cls, architecture: str) -> Family:
        """Going by the name alone: ``timm:resnet26d`` is a RESNET."""
        bare = architecture.rpartition(":")[2].removeprefix("small_").removeprefix("wide_")
        if bare.startswith(("resnet", "resnext")):
            return cls.RESNET
        return cls.VGG if bare.startswith("vgg") else cls.OTHER


class Preset(Choice):
    """A bundle of settings by name."""

    DEFAULT = "default"
    """What we recommend."""
    PUBLISHED = "published"
    """The published settings, with the faults of the published code mended."""


class Optimiser(Choice):
    """What turns gradients into steps."""

    SGD = "sgd"
    """Stochastic gradient descent with momentum (published)."""
    ADAM = "adam"
    """Adam; weight decay is added to the gradient."""
    ADAMW = "adamw"
    """Adam with decoupled weight decay."""


class Schedule(Choice):
    """How the learning rate changes over the epochs."""

    CONSTANT = "constant"
    """Not at all."""
    MULTISTEP = "multistep"
    """Times gamma at each milestone, an epoch (published)."""
    COSINE = "cosine"
    """Down to zero along half a cosine, after each batch."""
    ONE_CYCLE = "one_cycle"
    """Up to the learning rate in the first 30 % of the batches, then down to almost nothing, after each batch."""


class Log(Choice):
    """Where the learning curve is written, if the training has a directory."""

    CSV = "csv"
    """``log/metrics.csv``."""
    TENSORBOARD = "tensorboard"
    """``log``, for TensorBoard: needs the extra of that name."""
    NONE = "none"
    """Nowhere; it is in the result all the same."""


class ThresholdOver(Choice):
    """Which channels decide what importance is high enough."""

    FREE = "free"
    """Those that nobody owns yet (published, there called hard)."""
    ALL = "all"
    """All of them, though only free ones can be taken (published as soft): a task may get few or none."""


class Capacity(Choice):
    """How many free channels a task gets."""

    GEOMETRIC = "geometric"
    """A share of what is free, so that every task gets less than the one before (published)."""
    EQUAL = "equal"
    """As many for each of a known number of tasks."""
    FIXED = "fixed"
    """A number of channels of every group."""
    AUTO = "auto"
    """The smallest share that costs no more than some held-out accuracy, found by trial."""


class CrossBlock(Choice):
    """What becomes of the weights by which an older task's channel reads a newer task's."""

    ZERO = "zero"
    """They are zero: an older task's features stay the same while a newer one is running."""
    FROZEN = "frozen"
    """They keep their random initial values (published)."""
    TRAINABLE = "trainable"
    """They are trained with the newer task."""


class Norms(Choice):
    """Whose the parameters and statistics of normalisation layers are."""

    OWNER = "owner"
    """Of the task that owns the channel: four numbers a channel."""
    TASK = "task"
    """Every task has its own for all of its channels."""


class Exhausted(Choice):
    """What happens to a task for which no free channel is left."""

    REUSE = "reuse"
    """It learns a head on the channels of the older tasks, and a notice says so."""
    ERROR = "error"
    """It is refused."""
    EXPAND = "expand"
    """The network grows first."""


class Per(Choice):
    """What belongs to one task."""

    SAMPLE = "sample"
    """Every input may belong to another one."""
    BATCH = "batch"
    """All inputs that are passed together belong to one."""


class Score(Choice):
    """By what an input is told to belong to a task; higher is more usual."""

    DISTANCE = "distance"
    """Minus the Mahalanobis distance of its features to the nearest class of the task."""
    ENTROPY = "entropy"
    """Minus the entropy of the task's probabilities, over ln K."""
    ENERGY = "energy"
    """The logarithm of the sum of the exponentials of the task's logits."""
    MAX_PROBABILITY = "max_probability"
    """The highest probability of the task's classes."""


class StreamKind(Choice):
    """How one source of data becomes several tasks."""

    SPLIT = "split"
    """Some classes each."""
    PERMUTED = "permuted"
    """All classes, the pixels in another order."""
    ROTATED = "rotated"
    """All classes, the images turned further and further."""
