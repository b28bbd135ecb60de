"""The bill of materials in a bundle: bom.cdx.json, a CycloneDX 1.6 ML-BOM (ECMA-424).

What the model is, which files it consists of, the model that it was compiled from, the data that it was trained,
calibrated and evaluated with under which license, and the packages that made it. What nobody stated is absent. The same
bundle has the same bill: no time and no random numbers are in it.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from edgeseg.bundle import BOM, COPY_AGAIN, Bundle, FileEntry, Manifest, is_model_file
from edgeseg.errors import BundleError
from edgeseg.files import write_bytes
from edgeseg.packages import Package
from edgeseg.recipe import Card
from edgeseg.results.datasheet import Datasheet

FORMAT, VERSION = "CycloneDX", "1.6"
MODEL = "model"  # the bom-ref of the bundle


@dataclass(frozen=True)
class UsedData:
    """Data that a model was made with. `use`: training, calibration or evaluation. `frames`: how many; 0 where that is
    not known. `digest`: sha256 over them, where there is one."""

    name: str
    use: str
    frames: int = 0
    digest: str = ""
    datasheet: Datasheet = field(default_factory=Datasheet)


class _Part(msgspec.Struct, kw_only=True, omit_defaults=True, rename="camel"):
    """A part of the document: keys in camel case, empty ones left out."""


class Hash(_Part):
    alg: str
    content: str


class Property(_Part):
    name: str
    value: str


class LicenseName(_Part):
    name: str


class License(_Part):
    """A name, or an SPDX expression."""

    license: LicenseName | None = None
    expression: str = ""


class Contents(_Part):
    properties: tuple[Property, ...]


class Data(_Part):
    """CycloneDX's componentData: one use of a dataset."""

    type: str
    name: str = ""
    contents: Contents | None = None
    classification: str = ""
    sensitive_data: tuple[str, ...] = ()


class Reference(_Part):
    ref: str


class Format(_Part):
    format: str


class Parameters(_Part):
    task: str
    architecture_family: str = ""
    model_architecture: str = ""
    datasets: tuple[Reference, ...] = ()
    inputs: tuple[Format, ...] = ()
    outputs: tuple[Format, ...] = ()


class Metric(_Part):
    type: str
    value: str
    slice: str = ""


class Analysis(_Part):
    performance_metrics: tuple[Metric, ...]


class Considerations(_Part):
    use_cases: tuple[str, ...] = ()
    technical_limitations: tuple[str, ...] = ()


class ModelCard(_Part):
    model_parameters: Parameters
    quantitative_analysis: Analysis | None = None
    considerations: Considerations | None = None
    properties: tuple[Property, ...] = ()


class Component(_Part):
    type: str
    name: str
    bom_ref: str = msgspec.field(default="", name="bom-ref")
    version: str = ""
    description: str = ""
    hashes: tuple[Hash, ...] = ()
    licenses: tuple[License, ...] = ()
    purl: str = ""
    pedigree: Pedigree | None = None
    components: tuple[Component, ...] = ()
    model_card: ModelCard | None = None
    data: tuple[Data, ...] = ()
    properties: tuple[Property, ...] = ()


class Pedigree(_Part):
    ancestors: tuple[Component, ...]


class Tools(_Part):
    components: tuple[Component, ...]


class Metadata(_Part):
    component: Component
    tools: Tools | None = None


class Bom(_Part):
    """The document."""

    bom_format: str
    spec_version: str
    metadata: Metadata
    serial_number: str = ""
    version: int = 0
    components: tuple[Component, ...] = ()


def write(folder: Path, manifest: Manifest, data: Iterable[UsedData], packages: Iterable[Package]) -> None:
    """Write the bill of the bundle in `folder`, whose sealed manifest is `manifest`."""
    datasets = _datasets(data)
    tools = tuple(_package(package) for package in packages)
    metadata = Metadata(component=_model(manifest, datasets), tools=Tools(components=tools) if tools else None)
    _save(folder, Bom(bom_format=FORMAT, spec_version=VERSION, version=1, metadata=metadata, components=datasets))


def renew(folder: Path, manifest: Manifest) -> None:
    """Rewrite the bill in `folder`, if there is one, for another manifest of the same files: another name, or metrics
    that were measured since."""
    if BOM not in manifest.files:
        return
    old = parse((folder / BOM).read_bytes(), folder)
    metadata = msgspec.structs.replace(old.metadata, component=_model(manifest, old.components))
    _save(folder, msgspec.structs.replace(old, metadata=metadata))


def check(bundle: Bundle) -> bool:
    """Whether the bundle has a bill; BundleError where it cannot be read, or is one of other files."""
    if BOM not in bundle.files:
        return False
    listed = {part.name: part.hashes for part in parse(bundle.files[BOM], bundle.path).metadata.component.components}
    if listed != {name: _sha256(entry.sha256) for name, entry in _model_files(bundle.manifest).items()}:
        raise BundleError(f"{bundle.path / BOM} is the bill of materials of other files.", COPY_AGAIN)
    return True


def parse(text: bytes, bundle: Path) -> Bom:
    """The bill in `text`; BundleError for anything else."""
    try:
        bom = msgspec.json.decode(text, type=Bom)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{bundle / BOM} cannot be read: {error}.", COPY_AGAIN) from None
    if (bom.bom_format, bom.spec_version) != (FORMAT, VERSION):
        raise BundleError(
            f"{bundle / BOM} is {bom.bom_format[:40]} {bom.spec_version[:40]}.", f"Expected {FORMAT} {VERSION}."
        )
    return bom


def _save(folder: Path, bom: Bom) -> None:
    """The serial number is made from everything else (a UUID of version 5, RFC 9562)."""
    unnumbered = msgspec.json.encode(msgspec.structs.replace(bom, serial_number=""))
    serial = uuid.uuid5(uuid.NAMESPACE_URL, f"sha256:{hashlib.sha256(unnumbered).hexdigest()}").urn
    text = msgspec.json.encode(msgspec.structs.replace(bom, serial_number=serial))
    write_bytes(folder / BOM, msgspec.json.format(text, indent=1) + b"\n")


def _model(manifest: Manifest, datasets: Sequence[Component]) -> Component:
    parent = manifest.parent
    ancestor = parent and Component(type="machine-learning-model", name=parent.file, hashes=_sha256(parent.sha256))
    files = _model_files(manifest).items()
    card = _stated(manifest.recipe or {})
    return Component(
        type="machine-learning-model",
        name=manifest.name,
        bom_ref=MODEL,
        licenses=_licenses(card.license),
        pedigree=Pedigree(ancestors=(ancestor,)) if ancestor else None,
        components=tuple(Component(type="file", name=name, hashes=_sha256(entry.sha256)) for name, entry in files),
        model_card=_model_card(manifest, card, datasets),
        properties=_properties(target=manifest.target, backend=manifest.backend, precision=manifest.precision.value),
    )


def _model_card(manifest: Manifest, card: Card, datasets: Sequence[Component]) -> ModelCard:
    spec, student = manifest.spec, (manifest.recipe or {}).get("student", {})
    metrics = _metrics(manifest)
    stated = Considerations(
        use_cases=(card.use,) if card.use else (), technical_limitations=(card.limits,) if card.limits else ()
    )
    return ModelCard(
        model_parameters=Parameters(
            task=f"{spec.task} segmentation",
            architecture_family=str(student.get("arch", "")),
            model_architecture=str(student.get("encoder", "")),
            datasets=tuple(Reference(ref=part.bom_ref) for part in datasets),
            inputs=(Format(format=f"image of {spec.width}x{spec.height} pixels, {spec.color}"),),
            outputs=(Format(format=f"class of each pixel, one of {len(spec.classes)}"),),
        ),
        quantitative_analysis=Analysis(performance_metrics=metrics) if metrics else None,
        considerations=stated if stated != Considerations() else None,
        properties=_properties("spec", **msgspec.to_builtins(spec)),
    )


def _metrics(manifest: Manifest) -> tuple[Metric, ...]:
    """Shares of 1: the agreement with the parent, and what was measured on labeled frames."""
    rows: list[tuple[str, float | None, str]] = []
    if manifest.parity:
        rows.append(("pixel agreement with the parent", manifest.parity.agreement, ""))
    if measured := manifest.metrics:
        frames = f"{measured.data} {measured.split}".strip()
        rows += [("mIoU", measured.miou, frames), ("pixel accuracy", measured.pixel_accuracy, frames)]
        rows += [("IoU", scores.iou, f"{frames}, {name}") for name, scores in measured.per_class.items()]
    return tuple(Metric(type=kind, value=f"{value:.6f}", slice=part) for kind, value, part in rows if value is not None)


def _datasets(data: Iterable[UsedData]) -> tuple[Component, ...]:
    """One component for each dataset, with its uses."""
    parts: dict[tuple[str, Datasheet], Component] = {}
    for used in data:
        key, sheet = (used.name, used.datasheet), used.datasheet
        part = parts.get(key) or Component(
            type="data",
            name=used.name,
            bom_ref=f"data-{len(parts) + 1}",
            description=_line(sheet.source),
            licenses=_licenses(sheet.license),
            properties=_properties(consent=_line(sheet.consent)),
        )
        about = _properties(frames=used.frames or "", digest=used.digest)
        use = Data(
            type="dataset",
            name=used.use,
            contents=Contents(properties=about) if about else None,
            classification=_line(sheet.classification),
            sensitive_data=(_line(sheet.sensitive),) if sheet.sensitive else (),
        )
        parts[key] = msgspec.structs.replace(part, data=(*part.data, use))
    return tuple(parts.values())


def _package(package: Package) -> Component:
    """edgeseg itself has no address: it is in no index of packages yet."""
    stated = License(expression=package.license) if package.spdx else License(license=LicenseName(name=package.license))
    own = package.name == "edgeseg"
    return Component(
        type="application" if own else "library",
        name=package.name,
        bom_ref=package.name,
        version=package.version,
        licenses=(stated,) if package.license else (),
        purl="" if own else package.purl,
    )


def _model_files(manifest: Manifest) -> dict[str, FileEntry]:
    return {name: entry for name, entry in sorted(manifest.files.items()) if is_model_file(name)}


def _stated(recipe: Mapping[str, Any]) -> Card:
    """What the recipe's author stated; "" for what the recipe's defaults say."""
    card, default = recipe.get("card", {}), Card()
    said = {key: str(card.get(key, "")) for key in vars(default)}
    return replace(default, **{key: "" if said[key] == getattr(default, key) else said[key] for key in said})


def _licenses(text: str) -> tuple[License, ...]:
    return (License(license=LicenseName(name=_line(text))),) if text.strip() else ()


def _line(text: str) -> str:
    return " ".join(text.split())


def _sha256(digest: str) -> tuple[Hash, ...]:
    return (Hash(alg="SHA-256", content=digest),)


def _properties(group: str = "", **values: object) -> tuple[Property, ...]:
    """Properties called edgeseg:[GROUP:]KEY, without empty ones."""
    start = f"edgeseg:{group}:" if group else "edgeseg:"
    texts = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in values.items()
        if value is not None
    }
    return tuple(Property(name=start + key, value=text) for key, text in texts.items() if text)
