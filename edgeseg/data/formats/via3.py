"""VGG Image Annotator 3 (https://www.robots.ox.ac.uk/~vgg/software/via/): a project as JSON. Read as version 2 is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from edgeseg.data.formats import Labels, _files, _via

TITLE = "VGG Image Annotator 3"
KINDS = {1: "point", 2: "rect", 3: "circle", 4: "ellipse", 5: "line", 6: "polyline", 7: "polygon"}


class File3(msgspec.Struct, gc=False):
    fname: str


class View3(msgspec.Struct, gc=False):
    fid_list: list[int | str]


class Metadata3(msgspec.Struct, gc=False):
    vid: int | str
    xy: list[Any] = []
    av: dict[str, Any] = {}


class Attribute3(msgspec.Struct, gc=False):
    aname: str
    options: dict[str, Any] | str = {}


class Project3(msgspec.Struct):
    file: dict[str, File3]
    view: dict[str, View3]
    metadata: dict[str, Metadata3]
    attribute: dict[str, Attribute3] = {}


def probe(source: Path) -> bool:
    return _document(source) is not None


def _document(source: Path) -> Path | None:
    found = [p for p in _files.json_files(source) if {"project", "file", "view", "metadata"} <= _files.keys(p)]
    return found[0] if len(found) == 1 else None


def read(source: Path) -> Labels:
    path = _document(source)
    if path is None:
        raise _files.not_this(source, "JSON of VIA 3", "Expected a project of VIA 3.")
    document = _files.read_document(path, Project3)
    file_of = {view_id: document.file[str(v.fid_list[0])].fname for view_id, v in document.view.items()
               if len(v.fid_list) == 1 and str(v.fid_list[0]) in document.file}  # fmt: skip
    names = {key: attribute.aname for key, attribute in document.attribute.items()}
    files: dict[str, list[_via.Shape]] = {name: [] for name in file_of.values()}
    for item in document.metadata.values():
        kind = KINDS.get(int(item.xy[0])) if item.xy and isinstance(item.xy[0], (int, float)) else None
        if kind and str(item.vid) in file_of:
            attributes = {names.get(key, key): _option(document, key, value) for key, value in item.av.items()}
            files[file_of[str(item.vid)]].append(_via.Shape(kind, item.xy[1:], attributes))
    options = {a.aname: list(map(str, a.options.values())) for a in document.attribute.values()
               if isinstance(a.options, dict)}  # fmt: skip
    return _via.labels(path, files, options)


def _option(document: Project3, key: str, value: object) -> object:
    """VIA 3 stores the key of a chosen option."""
    attribute = document.attribute.get(key)
    options = attribute.options if attribute and isinstance(attribute.options, dict) else {}
    return options.get(str(value), value)
