"""Which output of a network is the class map, and what its axes are."""

from __future__ import annotations

from onnx import ModelProto

from edgeseg.errors import OptionError
from edgeseg.onnx_graph.index import drop_unused

MAX_LISTED = 8


def select_named(model: ModelProto, name: str) -> None:
    """Leave only the output `name` ("" = all); OptionError where there is none."""
    names = [o.name for o in model.graph.output]
    if not names:
        raise OptionError("The model has no output.", "Export it again.")
    if name and name not in names:
        raise OptionError(f"The model has no output {name!r}.", f"Its outputs: {', '.join(names[:MAX_LISTED])}.")
    if name:
        _keep(model, name)


def select_by_size(model: ModelProto, shapes: dict[str, list[int]], height: int, width: int) -> None:
    """Of several outputs leave the one that is larger than all others; OptionError with the list where none is.

    `shapes`: of the graph for an input of `height` x `width`. An output of other proportions is no class map.
    """
    names = [o.name for o in model.graph.output]
    if len(names) == 1:
        return
    sizes = {name: pixels(shapes.get(name, []), height, width) for name in names}
    best = [name for name in names if sizes[name] and sizes[name] == max(sizes.values())]
    if len(best) != 1:
        listed = ", ".join(f"{name} {shapes.get(name, '(shape unknown)')}" for name in names[:MAX_LISTED])
        more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
        raise OptionError(
            f"The model has {len(names)} outputs: {listed}{more}.",
            f"Choose the one with the class scores: --output {(best or names)[0]}.",
        )
    _keep(model, best[0])
    drop_unused(model)


def _keep(model: ModelProto, name: str) -> None:
    for value in [o for o in model.graph.output if o.name != name]:
        model.graph.output.remove(value)


def pixels(shape: list[int], height: int, width: int) -> int:
    """How many positions an output of this shape has, 0 where it is not a map of the frame."""
    found = labels(shape, height, width)
    return shape[found.index("h")] * shape[found.index("w")] if found else 0


def labels(shape: list[int], height: int, width: int, channels: int = 0) -> str:
    """What each axis of an output is, one letter each: c (classes), h, w, and 1 for an axis of one element.

    "" where the shape is no map of a frame of `height` x `width`. `channels`: the number of classes where it is known,
    else 0. Channels first wins where both orders fit.
    """
    sized = [i for i, size in enumerate(shape) if size != 1]
    if not all(shape):
        return ""
    if len(sized) == 2 and channels in (0, 1):
        orders = ["hw"]
    elif len(sized) == 3 and channels != 1:
        orders = [order for order in ("chw", "hwc") if channels in (0, shape[sized[order.index("c")]])]
    else:
        orders = []
    for order in orders:
        h, w = (shape[sized[order.index(letter)]] for letter in "hw")
        if _in_proportion(h, w, height, width):
            letters = iter(order)
            return "".join("1" if size == 1 else next(letters) for size in shape)
    return ""


def _in_proportion(h: int, w: int, height: int, width: int) -> bool:
    """Whether h x w is a size of the frame's proportions, up to a pixel of rounding, and no larger than twice it."""
    return abs(h * width - w * height) <= max(height, width) and h <= 2 * height
