"""What OpenVINO's Model API and its exporters (Geti, Ultralytics, Anomalib) write about a network: `model_info`.

It stands in the rt_info of an OpenVINO IR (.xml), and in the metadata of an ONNX file under keys such as
"model_info labels". Means and scales are those of pixels from 0 to 255 in the order of the network's channels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from edgeseg.errors import FileError
from edgeseg.onnx_graph.exporter import BYTE, ExporterMetadata

PREFIX = "model_info "
MAX_XML = 64 << 20
FITS = {"standard": "stretch", "fit_to_window_letterbox": "letterbox", "crop": "crop"}


def of_ir(path: Path) -> ExporterMetadata | None:
    """Of an OpenVINO IR; None where it has no model_info. FileError for a file that cannot be read."""
    try:
        if path.stat().st_size > MAX_XML:
            raise ValueError(f"over {MAX_XML >> 20} MiB")
        data = path.read_bytes()
        if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
            raise ValueError("it defines entities, which no IR does")
        found = ElementTree.fromstring(data).find("rt_info/model_info")
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise FileError(f"{path} cannot be read: {error}.", "Copy it again, or move it away from the model.") from error
    return None if found is None else of_values({entry.tag: entry.get("value", "") for entry in found})


def of_properties(properties: Mapping[str, str]) -> ExporterMetadata | None:
    """Of the metadata of an ONNX file; None where there is none."""
    named = {key[len(PREFIX) :]: value for key, value in properties.items() if key.startswith(PREFIX)}
    return of_values(named) if named else None


def of_values(info: Mapping[str, str]) -> ExporterMetadata:
    """Of the entries of a model_info. What they leave out stays open."""
    labels = tuple(info.get("labels", "").split())
    reverse = info.get("reverse_input_channels", "").lower()
    mean, scale = _numbers(info.get("mean_values", "")), _numbers(info.get("scale_values", ""))
    normalized = (mean or scale) and info.get("embedded_processing", "").lower() not in ("true", "yes", "1")
    return ExporterMetadata(
        labels if len(labels) > 1 else None,
        None,
        FITS.get(info.get("resize_type", "")),
        tuple(value / BYTE for value in mean or (0.0, 0.0, 0.0)) if normalized else None,
        tuple(value / BYTE for value in scale or (1.0, 1.0, 1.0)) if normalized else None,
        {"true": "RGB", "yes": "RGB", "1": "RGB", "false": "BGR", "no": "BGR", "0": "BGR"}.get(reverse),
    )


def _numbers(text: str) -> tuple[float, ...] | None:
    """Three numbers, or one that stands for three; None for anything else."""
    words = re.split(r"[\s,]+", text.strip(" []"))
    try:
        values = tuple(float(word) for word in words if word)
    except ValueError:
        return None
    return values * 3 if len(values) == 1 else values if len(values) == 3 else None
