"""Recipe: one flat TOML file that names the data, the networks and every stage from teacher to bundles.

    name = "street"
    [data]                                   # `root`, a folder; or `synthetic`, rendered streets
    synthetic = { train = 240, val = 40, test = 60, seed = 1 }
    size = [224, 384]                        # height, width of the network's input
    [teacher]                                # likewise [student]: a network and how it is trained
    width = 2.0

Every key is a field below. Required are `name`, `size` and one of `root` and `synthetic`.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from edgeseg import target, toml
from edgeseg.errors import OptionError
from edgeseg.toml import choice, number, wrong_value

LOSSES = ("ce", "dice", "iou", "boundary", "focal", "tversky", "matching")  # keys of Settings: weights of the losses


@dataclass(frozen=True)
class Synthetic:
    """Streets to render instead of a dataset on disk.

    `train`, `val` and `test`: frames to render for each split. `seed`: the same seed renders the same frames.
    """

    train: int = number(240, 1, 100_000)
    val: int = number(40, 1, 100_000)
    test: int = number(60, 1, 100_000)
    seed: int = number(1, 0, 2**31)


@dataclass(frozen=True)
class Data:
    """Exactly one of `root` and `synthetic` must be given.

    `root`: a dataset, ROOT/{train,val,test}/{images,masks}. `synthetic`: a table with the keys train, val, test and
    seed: streets to render. `size`: height and width of the network's input, multiples of 32. `fit`: how frames of
    another shape become that, see Spec. `shuffle_buffer`: with shards, how many frames are mixed at a time while the
    shards are read one after another, for disks and networks where seeks are slow; 0 mixes all.
    """

    root: str = ""
    synthetic: Synthetic | None = None
    size: tuple[int, int] = number((0, 0), 32, 4096)
    fit: str = choice("stretch", "letterbox", "crop", "pad")
    shuffle_buffer: int = number(0, 0, 10_000_000)


@dataclass(frozen=True)
class NetConfig:
    """A network architecture.

    `arch`: a family, see "Choose a net". `encoder`: an encoder of smp by its name or of timm as tu-NAME, of eomt,
    mask2former and maskformer a size: tiny, small, base or large; "" is the family's default. `weights`: pretrained
    weights of the encoder: a safetensors file, or a name to download: "imagenet" or one of the tags that timm and smp
    list for this encoder; or, without an encoder, those of a whole network of Hugging Face's transformers: a folder,
    or hf:OWNER/NAME to download; "" starts from random weights. `width`: scales the channels of edgeseg's own families.
    """

    arch: str = "lite"
    encoder: str = ""
    weights: str = ""
    width: float = number(1.0, 0.1, 16)


@dataclass(frozen=True)
class Settings:
    """How a network is trained. The loss is the sum of `ce`, `dice`, `iou`, `boundary`, `focal`, `tversky` and
    `matching`, each multiplied by its weight.

    `epochs`: passes over the training frames. `batch`: frames per update, over all devices. `accumulate`: parts that a
    batch is split into to use less memory; batch norms and means over pixels are then per part. `lr`: the highest
    learning rate. `optimizer`: AdamW, or SGD with momentum 0.9. `weight_decay`: of weight matrices; biases and norms do
    not decay. `schedule`: how the rate falls after the warm-up: cosine to 0, poly (power 0.9) to 0, or step (a tenth
    after two thirds, a hundredth after eight ninths). `warmup`: share of all steps during which the rate rises to lr.
    `clip`: largest gradient norm; 0 is off. `ema`: decay of the weight average; 0 is off. `patience`: epochs without a
    better val mIoU after which training stops and uses the best epoch; 0 runs to the end and uses the last. `ce`:
    weight of the cross-entropy. `dice`: weight of the Dice loss. `iou`: weight of the Lovasz-softmax loss. `boundary`:
    weight of the cross-entropy over boundary pixels. `focal`: weight of the focal loss: cross-entropy in which pixels
    count less the surer they are right. `focal_gamma`: how much less; 0 is the cross-entropy. `tversky`: weight of the
    Tversky loss: Dice in which missed pixels may count more than false ones. `tversky_beta`: the share of the missed
    ones; 0.5 is Dice. `matching`: weight of the loss of networks with queries (eomt, mask2former, maskformer), which
    matches each class of a frame with one query. `class_weights`: one per class, in the cross-entropy. `smoothing`:
    label smoothing of the cross-entropy. `ohem`: the fraction of pixels, those with the highest cross-entropy, that
    count in it; 0 counts all. `stride`: distance of the pixels and rows that the loss of a step uses, from a random
    start. `scale`: smallest and largest random zoom. `flip`: mirror left and right at random. `rotate`: largest angle
    in degrees. `elastic`: largest local shift in pixels. `jitter`: largest relative change of brightness, contrast and
    saturation. `blur`: largest Gaussian sigma in pixels. `noise`: largest standard deviation, on a scale of 0..255.
    `hue`: largest turn of all hues in degrees. `gamma`: largest logarithm of the exponent of brightness. `shadow`:
    largest share by which a random part is darker. `fog`: largest share of haze. `rain`: largest density of streaks.
    `jpeg`: worst quality that a frame is encoded with; 0 is off. `cutout`: largest share of each side of a hidden
    rectangle, whose pixels do not count. `perspective`: largest shift of each corner as a share of the sides. `cutmix`:
    largest share of each side of a rectangle that shows another training frame, with its labels. `copy_paste`: share of
    the frames that get an object or region of a rare class of another training frame.
    `crop`: height and width of the training crop, multiples of 32; [0, 0] is the whole input. `precision`: of the
    training: full, or autocast to bf16 or fp16 (GPUs only). `encoder_lr`: the encoder's learning rate as a share of
    lr; below 1 for pretrained encoders.
    """

    epochs: int = number(30, 1, 10_000)
    batch: int = number(8, 1, 1024)
    accumulate: int = number(1, 1, 1024)
    lr: float = number(2e-3, 1e-7, 10)
    optimizer: str = choice("adamw", "sgd")
    weight_decay: float = number(1e-2, 0, 1)
    schedule: str = choice("cosine", "poly", "step")
    warmup: float = number(0.05, 0, 0.9)
    clip: float = number(5.0, 0, 1e6)
    ema: float = number(0.0, 0, 0.99999)
    patience: int = number(0, 0, 10_000)
    ce: float = number(1.0, 0, 10)
    dice: float = number(0.0, 0, 10)
    iou: float = number(0.0, 0, 10)
    boundary: float = number(0.0, 0, 10)
    focal: float = number(0.0, 0, 10)
    focal_gamma: float = number(2.0, 0, 10)
    tversky: float = number(0.0, 0, 10)
    tversky_beta: float = number(0.7, 0, 1)
    matching: float = number(0.0, 0, 10)
    class_weights: tuple[float, ...] = number((), 0, 1000)
    smoothing: float = number(0.0, 0, 0.5)
    ohem: float = number(0.0, 0, 1)
    stride: int = number(2, 1, 8)
    scale: tuple[float, float] = number((0.75, 1.5), 0.1, 10)
    flip: bool = True
    rotate: float = number(0.0, 0, 180)
    elastic: float = number(0.0, 0, 100)
    jitter: float = number(0.2, 0, 0.9)
    blur: float = number(0.0, 0, 10)
    noise: float = number(0.0, 0, 100)
    hue: float = number(0.0, 0, 180)
    gamma: float = number(0.0, 0, 2)
    shadow: float = number(0.0, 0, 0.95)
    fog: float = number(0.0, 0, 0.95)
    rain: float = number(0.0, 0, 1)
    jpeg: int = number(0, 0, 100)
    cutout: float = number(0.0, 0, 0.9)
    perspective: float = number(0.0, 0, 0.2)
    cutmix: float = number(0.0, 0, 0.9)
    copy_paste: float = number(0.0, 0, 1)
    crop: tuple[int, int] = number((0, 0), 0, 4096)
    precision: str = choice("fp32", "bf16", "fp16")
    encoder_lr: float = number(1.0, 0, 1)


@dataclass(frozen=True)
class Role(Settings, NetConfig):
    """A network and its training.

    `init`: a checkpoint of the same network and classes to continue from, with more epochs, other settings or more
    frames; "" starts from the encoder's weights.
    """

    init: str = ""

    @property
    def net(self) -> NetConfig:
        return NetConfig(**{f.name: getattr(self, f.name) for f in dataclasses.fields(NetConfig)})


@dataclass(frozen=True)
class Distill:
    """Distillation of the teacher into the student.

    `epochs`: 0 is the student's, so that both runs are comparable. `lr`: 0 is the student's. `temperature`: of
    the softmax in soft targets and channel-wise distillation. `weight`: share of the teacher's soft targets in the
    cross-entropy, the rest is the labels'. `channel`: weight of channel-wise distillation. `feature`: weight of
    attention transfer between the last feature maps before the heads. `structure`: weight of pairwise similarities
    within these maps. `cache`: run the teacher once per frame and augment its stored logits together with the labels,
    instead of running it in every step: an approximation, for teachers much slower than the student.
    """

    epochs: int = number(0, 0, 10_000)
    lr: float = number(0.0, 0, 10)
    temperature: float = number(2.0, 0.1, 100)
    weight: float = number(0.5, 0, 1)
    channel: float = number(0.0, 0, 100)
    feature: float = number(0.0, 0, 1000)
    structure: float = number(0.0, 0, 1000)
    cache: bool = False


@dataclass(frozen=True)
class Prune:
    """Removal of channels from the student.

    `macs`: share of the student's multiply-accumulates to keep. `latency`: share of its latency to keep, on the first
    target (in int8 if that is compiled); above 0 it replaces macs. `rounds`: of pruning a part, then fine-tuning.
    `epochs`: of fine-tuning with the teacher, spread over the rounds. `lr`: of fine-tuning. `round_to`: the channels of
    every layer are a multiple of this. `importance`: of a channel: the change of the loss without it (Taylor's estimate
    from the gradients of a few batches), the norm of its weights, or the scale of its batch norm.
    """

    macs: float = number(0.7, 0.05, 1)
    latency: float = number(0.0, 0, 1)
    rounds: int = number(1, 1, 100)
    epochs: int = number(10, 1, 10_000)
    lr: float = number(1e-3, 1e-7, 10)
    round_to: int = number(8, 1, 64)
    importance: str = choice("taylor", "magnitude", "bn")


@dataclass(frozen=True)
class PTQ:
    """How INT8 is calibrated.

    `ranges`: how the range of each activation is estimated. minmax: the smallest and largest value. mean: their means
    over frames. percentile: without 0.01 % of the values at either end. mse: with the least squared error. entropy:
    with the least loss of information (Migacz 2017). auto: the best of them by measurement (quantization/variants.py);
    entropy with TensorRT's calibrator. `bias`: correct the mean shift that rounded weights cause. `equalize`: first
    scale the channels between two layers to similar ranges, which changes nothing in float.
    """

    ranges: str = choice("auto", "minmax", "mean", "percentile", "mse", "entropy")
    bias: bool = True
    equalize: bool = False


@dataclass(frozen=True)
class Quantize(PTQ):
    """Calibration of the recipe's INT8 bundles.

    `frames`: number of calibration frames. `max_drop`: points of mIoU that INT8 may lose.
    """

    frames: int = number(64, 1, 100_000)
    max_drop: float = number(1.0, 0, 100)


@dataclass(frozen=True)
class Qat:
    """Quantization-aware training of the student, with labels and the teacher.

    `epochs`: 0 is off. `lr`: the highest learning rate. `symmetric`: round as TensorRT does (INT8 weights and
    activations, every zero point 0) instead of as OpenVINO and ONNX Runtime do.
    """

    epochs: int = number(0, 0, 10_000)
    lr: float = number(2e-4, 1e-7, 10)
    symmetric: bool = False


@dataclass(frozen=True)
class Targets:
    """The bundles to compile.

    `compile`: a list of TARGET:PRECISION, one bundle each. `golden`: the frames that every bundle stores for its
    self-test: a folder of images, or "synthetic" for rendered streets; "" stores calibration frames, which everyone who
    gets the bundle can then see.
    """

    compile: tuple[str, ...] = ("openvino-cpu:fp32", "openvino-cpu:int8")
    golden: str = ""


@dataclass(frozen=True)
class Card:
    """What the model card states besides measurements.

    `use`: the intended use. `license`: of the weights. `limits`: known limitations.
    """

    use: str = "Not stated by the recipe's author."
    license: str = "Not stated by the recipe's author."
    limits: str = "Frames unlike the training data were not tried."


@dataclass(frozen=True)
class Machine:
    """Where the training runs; results differ by rounding only.

    `device`: auto is a GPU if there is one. `nodes`: machines that torchrun starts processes on. `workers`: processes
    that decode and augment frames; 0 does so in the training process. `cache`: GB of decoded frames kept in memory per
    split; others are decoded in every epoch. `save_minutes`: after which the state is saved within an epoch, too; 0
    saves it after every epoch only. `pictures`: validation frames drawn after every epoch. `track`: where the
    metrics of every epoch are also written: TensorBoard or MLflow, both optional packages.
    """

    device: str = choice("auto", "cpu", "cuda", "mps")
    nodes: int = number(1, 1, 1024)
    workers: int = number(0, 0, 256)
    cache: float = number(4.0, 0, 4096)
    save_minutes: float = number(10.0, 0, 10_000)
    pictures: int = number(3, 0, 64)
    track: str = choice("", "tensorboard", "mlflow")


@dataclass(frozen=True)
class Recipe:
    """All stages from data to bundles. `folder`: of the recipe file; relative paths start there."""

    name: str
    data: Data
    teacher: Role = Role()
    student: Role = Role()
    distill: Distill = Distill()
    prune: Prune = Prune()
    quantize: Quantize = Quantize()
    qat: Qat = Qat()
    targets: Targets = Targets()
    card: Card = Card()
    machine: Machine = Machine()
    seed: int = number(1, 0, 2**31)
    folder: Path = field(default=Path(), compare=False)

    @classmethod
    def load(cls, path: Path | str) -> Recipe:
        """FileError for a file that cannot be read as TOML, OptionError that names the key for anything else."""
        path = Path(path)
        return cls.from_dict(toml.read(path, "Recipe"), path)

    @classmethod
    def from_dict(cls, table: dict[str, Any], path: Path) -> Recipe:
        """A recipe from plain values. `path`: of its file, for errors and relative paths."""
        recipe = toml.to_dataclass(cls, table, "", path)
        _check(recipe, path)
        student, distill = recipe.student, recipe.distill
        distill = dataclasses.replace(distill, epochs=distill.epochs or student.epochs, lr=distill.lr or student.lr)
        return dataclasses.replace(recipe, distill=distill, folder=path.parent)

    def resolve(self, path: str) -> Path:
        """A path of the recipe, relative to the recipe's folder, as one relative to the working folder."""
        return self.folder / path

    def to_dict(self) -> dict[str, Any]:
        """The resolved recipe with all defaults, as plain values that from_dict reads again."""
        values = {k: v for k, v in msgspec.to_builtins(self, enc_hook=str).items() if k != "folder"}
        values["data"] = {k: v for k, v in values["data"].items() if v not in ("", None)}
        return values


def _check(recipe: Recipe, path: Path) -> None:
    """OptionError for combinations that types and ranges allow but no stage can use."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", recipe.name):
        raise wrong_value(path, "name", recipe.name, "letters, digits, - _ . (it becomes a file name)")
    _check_data(recipe.data, path)
    _check_role("teacher", recipe.teacher, path)
    _check_role("student", recipe.student, path)
    if recipe.distill.cache and (recipe.distill.feature or recipe.distill.structure):
        raise OptionError(
            f"{path}: distill.cache is on with feature or structure.",
            "Only logits are cached, not feature maps: set feature and structure to 0, or cache = false.",
        )
    if recipe.prune.rounds > recipe.prune.epochs:
        raise wrong_value(path, "prune.rounds", recipe.prune.rounds, f"at most prune.epochs, {recipe.prune.epochs}")
    for entry in recipe.targets.compile:
        if not re.fullmatch(r"[^:]+:[^:]+", entry):
            raise wrong_value(path, "targets.compile", entry, "TARGET:PRECISION, like openvino-cpu:int8")
        try:
            target.split(entry)
        except OptionError as error:
            raise OptionError(f"{path}: targets.compile holds {entry!r}. {error.what}", error.hint) from None


def _check_data(data: Data, path: Path) -> None:
    if bool(data.root) == (data.synthetic is not None):
        raise OptionError(
            f"{path}: [data] has {'both root and' if data.root else 'neither root nor'} synthetic.",
            "Give exactly one of them.",
        )
    if data.size == (0, 0):
        raise OptionError(f"{path}: data.size is missing.", "Give the network's input: size = [height, width].")
    if any(side % 32 for side in data.size):
        raise wrong_value(path, "data.size", list(data.size), "multiples of 32, the stride of the deepest stage")


def _check_role(name: str, role: Role, path: Path) -> None:
    if role.scale[0] > role.scale[1]:
        raise wrong_value(path, f"{name}.scale", list(role.scale), "[smallest, largest]")
    if any(side % 32 for side in role.crop):
        raise wrong_value(path, f"{name}.crop", list(role.crop), "multiples of 32, or [0, 0] for the whole input")
    if role.accumulate > role.batch:
        raise wrong_value(path, f"{name}.accumulate", role.accumulate, f"at most the batch, {role.batch}")
    if not any(getattr(role, loss) for loss in LOSSES):
        raise wrong_value(path, f"{name}.ce", role.ce, f"a loss: at least one of {', '.join(LOSSES)} above 0")
