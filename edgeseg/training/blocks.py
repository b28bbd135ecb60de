"""Building blocks of edgeseg's own families: convolution, batch norm, ReLU, pooling, addition, nearest-neighbor
upsampling. All of them quantize well on OpenVINO, TensorRT and TFLite."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import OptionError

CHANNELS = (16, 32, 64, 96, 128)  # of PlainEncoder at strides 2, 4, 8, 16, 32, times `width`
BLOCKS = (0, 1, 1, 1, 1)  # residual blocks at these strides


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
        nn.init.zeros_(norm.weight)  # the identity at first: trains faster from scratch

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class GlobalContext(nn.Module):
    """Adds a projection of the global average (mean over all positions) to every position."""

    def __init__(self, channels: int):
        super().__init__()
        self.local = Conv(channels, channels)
        self.whole = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.local(x) + self.whole(F.adaptive_avg_pool2d(x, 1)))


class PyramidPooling(nn.Module):
    """Context at four scales and the global average: [N, inputs, h, w] -> [N, outputs, h, w].

    In place of the poolings of PP-LiteSeg's SPPM and DDRNet's DAPPM, 5x5 max pooling repeated (5, 9, 13 wide): it
    preserves the map's size, so nothing is resized back and no bin depends on the input's size.
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


class PlainEncoder(nn.Module):
    """edgeseg's own encoder: feature maps at strides 4, 8, 16, 32."""

    def __init__(self, width: float):
        super().__init__()
        channels = [round_to_8(c * width) for c in CHANNELS]
        stages, inputs = [], 3
        for outputs, blocks in zip(channels, BLOCKS):
            stages.append(nn.Sequential(Conv(inputs, outputs, stride=2), *(Residual(outputs) for _ in range(blocks))))
            inputs = outputs
        self.stages = nn.ModuleList(stages)
        self.channels = channels[1:]

    def forward(self, image: Tensor) -> list[Tensor]:
        maps = [image]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[2:]


class TimmEncoder(nn.Module):
    """An encoder of timm by its name (with or without smp's prefix `tu-`): feature maps at strides 4, 8, 16, 32."""

    def __init__(self, name: str, **options: Any):
        super().__init__()
        import timm

        name = name.removeprefix("tu-")
        options |= any_size_options(name)
        self.model: Any = timm.create_model(name, features_only=True, pretrained=False, **options)
        maps: Any = self.model.feature_info
        if maps.reduction()[-4:] != [4, 8, 16, 32]:
            raise OptionError(f"Encoder {name!r} has maps at strides {maps.reduction()}.", "Expected 4, 8, 16 and 32.")
        self.channels: list[int] = maps.channels()[-4:]
        self.last = getattr(self.model, "output_fmt", None) == "NHWC"  # some transformers have channels last

    def forward(self, image: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.model(image)[-4:]
        return [m.permute(0, 3, 1, 2) for m in maps] if self.last else maps


class GridPool(nn.Module):
    """Adaptive average pooling to [bins, bins] as two matrix products, equal to torch's up to rounding.

    ONNX has no adaptive pooling, and torch's exporter refuses maps that the bins do not divide.
    """

    def __init__(self, bins: int):
        super().__init__()
        self.bins = bins

    def forward(self, x: Tensor) -> Tensor:
        height, width = int(x.shape[2]), int(x.shape[3])
        if height % self.bins == 0 and width % self.bins == 0:
            return F.avg_pool2d(x, (height // self.bins, width // self.bins))
        rows = (x @ self._averaging(width, x)).transpose(2, 3)  # TFLite takes constants on the right only
        return (rows @ self._averaging(height, x)).transpose(2, 3)

    def _averaging(self, size: int, like: Tensor) -> Tensor:
        """[size, bins]: the weight of each position in each bin; neighboring bins may share a position."""
        rows = np.zeros((size, self.bins), np.float32)  # not torch's: becomes a constant in the exported graph
        for i in range(self.bins):
            start, end = i * size // self.bins, -(-(i + 1) * size // self.bins)
            rows[start:end, i] = 1 / (end - start)
        return torch.from_numpy(rows).to(like)


def build_encoder(name: str, width: float) -> PlainEncoder | TimmEncoder:
    """timm's encoder `name`, or edgeseg's own where `name` is empty."""
    return TimmEncoder(name) if name else PlainEncoder(width)


def any_size_options(name: str) -> dict[str, bool]:
    """Options of timm's `create_model` with which an encoder takes frames of any size."""
    import timm

    windowed = ["swin_transformer", "swin_transformer_v2", "swin_transformer_v2_cr"]
    return {"strict_img_size": False} if timm.models.is_model_in_modules(name.split(".")[0], windowed) else {}


def round_to_8(channels: float) -> int:
    """The nearest multiple of 8, at least 8: vector units work in such steps."""
    return max(8, round(channels / 8) * 8)


def upsample_2x(x: Tensor) -> Tensor:
    """Nearest-neighbor upsampling by two."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def upsample_bilinear(x: Tensor, factor: int) -> Tensor:
    """Bilinear upsampling, as a net's last step: the deploy graph recognizes it and cuts it off."""
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)
