"""What the families of our own are built from: convolution, batch norm, ReLU, pooling, addition, nearest-neighbor
upsampling. Nothing here loses accuracy or speed when it is quantized on OpenVINO, TensorRT or TFLite."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import OptionError

CHANNELS = (16, 32, 64, 96, 128)  # of Plain at strides 2, 4, 8, 16, 32, times `width`
BLOCKS = (0, 1, 1, 1, 1)


class Conv(nn.Sequential):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, relu: bool = True):
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU() if relu else nn.Identity(),
        )


class Residual(nn.Module):
    """relu(x + conv(conv(x))), He et al. 2016."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = Conv(channels, channels)
        self.second = Conv(channels, channels, relu=False)
        norm: Any = self.second[1]
        nn.init.zeros_(norm.weight)  # starts as the identity: trains faster from scratch

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class Context(nn.Module):
    """Adds what the whole frame looks like (mean over all positions) to every position."""

    def __init__(self, channels: int):
        super().__init__()
        self.local = Conv(channels, channels)
        self.whole = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.local(x) + self.whole(F.adaptive_avg_pool2d(x, 1)))


class Pyramid(nn.Module):
    """What lies around a position at four scales, and the mean of the whole frame: [N, inputs, h, w] -> outputs.

    The poolings of PP-LiteSeg's SPPM and DDRNet's DAPPM, as 5x5 maxima one after another (5, 9, 13 wide), because these
    keep the map's size: no resize back, and no bins that depend on the input's size.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        inner = outputs // 2
        self.narrow = Conv(inputs, inner, 1)
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)
        self.merge = Conv(4 * inner, outputs, 1, relu=False)
        self.whole = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        scales = [self.narrow(x)]
        for _ in range(3):
            scales.append(self.pool(scales[-1]))
        return F.relu(self.merge(torch.cat(scales, 1)) + self.whole(F.adaptive_avg_pool2d(x, 1)))


class Plain(nn.Module):
    """The encoder of our own: maps at strides 4, 8, 16, 32."""

    def __init__(self, width: float):
        super().__init__()
        channels = [eights(c * width) for c in CHANNELS]
        stages, before = [], 3
        for now, blocks in zip(channels, BLOCKS):
            stages.append(nn.Sequential(Conv(before, now, stride=2), *(Residual(now) for _ in range(blocks))))
            before = now
        self.stages = nn.ModuleList(stages)
        self.channels = channels[1:]

    def forward(self, image: Tensor) -> list[Tensor]:
        maps = [image]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[2:]


class Timm(nn.Module):
    """An encoder of timm by its name (with or without smp's prefix `tu-`): maps at strides 4, 8, 16, 32."""

    def __init__(self, name: str, **options: Any):
        super().__init__()
        import timm

        name = name.removeprefix("tu-")
        options |= any_size(name)
        self.model: Any = timm.create_model(name, features_only=True, pretrained=False, **options)
        maps: Any = self.model.feature_info
        if maps.reduction()[-4:] != [4, 8, 16, 32]:
            raise OptionError(f"Encoder {name!r} has maps at strides {maps.reduction()}.", "Expected 4, 8, 16 and 32.")
        self.channels: list[int] = maps.channels()[-4:]
        self.last = getattr(self.model, "output_fmt", None) == "NHWC"  # transformers put the channels last

    def forward(self, image: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.model(image)[-4:]
        return [m.permute(0, 3, 1, 2) for m in maps] if self.last else maps


class GridPool(nn.Module):
    """Adaptive average pooling to [bins, bins] as two matrix products, equal to torch's to rounding.

    ONNX has no such pooling and its exporter refuses maps that the bins do not divide.
    """

    def __init__(self, bins: int):
        super().__init__()
        self.bins = bins

    def forward(self, x: Tensor) -> Tensor:
        height, width = int(x.shape[2]), int(x.shape[3])
        if height % self.bins == 0 and width % self.bins == 0:
            return F.avg_pool2d(x, (height // self.bins, width // self.bins))
        rows = (x @ self._shares(width, x)).transpose(2, 3)  # constants on the right alone: all that TFLite has
        return (rows @ self._shares(height, x)).transpose(2, 3)

    def _shares(self, size: int, like: Tensor) -> Tensor:
        """[size, bins]: what each position adds to each bin; bins may overlap by one."""
        rows = np.zeros((size, self.bins), np.float32)  # not torch's: it is to be a constant of the exported graph
        for i in range(self.bins):
            start, end = i * size // self.bins, -(-(i + 1) * size // self.bins)
            rows[start:end, i] = 1 / (end - start)
        return torch.from_numpy(rows).to(like)


def encoder_of(name: str, width: float) -> Plain | Timm:
    """timm's encoder `name`, or the one of our own where `name` is empty."""
    return Timm(name) if name else Plain(width)


def any_size(name: str) -> dict[str, bool]:
    """What timm's `create_model` needs so that an encoder takes frames of any size."""
    import timm

    windowed = ["swin_transformer", "swin_transformer_v2", "swin_transformer_v2_cr"]
    return {"strict_img_size": False} if timm.models.is_model_in_modules(name.split(".")[0], windowed) else {}


def eights(channels: float) -> int:
    """The nearest multiple of 8, at least 8: what vector units like."""
    return max(8, round(channels / 8) * 8)


def double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def enlarge(x: Tensor, factor: int) -> Tensor:
    """Bilinear, as a net's last step: the deploy graph recognizes it and cuts it off."""
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)
