"""Collected frames to a task of a CVAT server and back, through its SDK (extra `cvat`).

COLLECTION/cvat.json remembers the server and the task.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

from edgeseg.data.exporting import export_dataset
from edgeseg.errors import EdgesegError, FileError, MissingPackage, first_line
from edgeseg.labeling.importing import import_labels
from edgeseg.labeling.selecting import selected
from edgeseg.records import Record
from edgeseg.results.labeling import LabelImport

TASK = "cvat.json"
UPLOAD, DOWNLOAD = "CVAT 1.1", "CVAT for images 1.1"  # what CVAT calls the format of its own
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Login:
    """`token`: an access token of CVAT; else `user` and `password`. None of them is stored."""

    token: str = ""
    user: str = ""
    password: str = ""


@dataclass(frozen=True)
class CvatTask(Record):
    """Where frames were sent to. `task`: its number on the server; `frames`: how many."""

    KIND: ClassVar[str] = "cvat-task"
    HINT: ClassVar[str] = "Send the frames with edgeseg label push."

    url: str
    task: int
    frames: int


def push(collection: Path, url: str, login: Login, frames: int | None, progress: Progress) -> CvatTask:
    """Create a task with the frames of most worth (all by default) and the model's labels on them.

    FileError where a task is remembered already, EdgesegError where the server refuses or is not there.
    """
    if (collection / TASK).exists():
        raise FileError(f"{collection / TASK} remembers a task.", "Pull that one first, or remove the file.")
    with _client(url, login) as client, selected(collection, frames) as root, tempfile.TemporaryDirectory() as folder:
        from cvat_sdk import models

        exported = Path(folder) / "cvat"
        export_dataset(root, "cvat", exported, progress)
        document = ElementTree.parse(exported / "annotations.xml")
        images = _flatten(document)
        document.write(exported / "annotations.xml", encoding="utf-8")
        labels = [
            models.PatchedLabelRequest(name=label.findtext("name", ""), color=label.findtext("color", ""))
            for label in document.iter("label")
        ]
        task = client.tasks.create_from_data(
            models.TaskWriteRequest(name=collection.resolve().name, labels=labels),
            [exported / "images" / name for name in images],
            data_params={"sorting_method": "predefined", "image_quality": 100},
            annotation_path=str(exported / "annotations.xml"),
            annotation_format=UPLOAD,
        )
        made = CvatTask(url, int(task.id), len(images))
    made.save(collection / TASK)
    return made


def pull(collection: Path, login: Login, out: Path, progress: Progress) -> LabelImport:
    """Import the corrected labels of the task that is remembered into the dataset `out`, as import_labels does."""
    made = CvatTask.load(collection / TASK)
    with _client(made.url, login) as client, tempfile.TemporaryDirectory() as folder:
        from cvat_sdk.core.proxies.types import Location

        path = Path(folder) / "corrected.zip"
        client.tasks.retrieve(made.task).export_dataset(DOWNLOAD, path, include_images=False, location=Location.LOCAL)
        return import_labels(path, collection, out, "cvat", progress)


def _flatten(document: Any) -> list[str]:
    """Names without folders, as CVAT stores frames that are uploaded; the paths that they had, in the same order."""
    paths = []
    for image in document.iter("image"):
        paths.append(image.get("name"))
        image.set("name", Path(paths[-1]).name)
        image.attrib.pop("subset", None)
    return paths


@contextmanager
def _client(url: str, login: Login) -> Iterator[Any]:
    """The SDK's client, logged in; its errors as ours, without a word of what was sent."""
    try:
        from cvat_sdk import core, make_client
        from cvat_sdk.api_client.exceptions import ApiException
        from urllib3.exceptions import HTTPError
    except ImportError as error:
        raise MissingPackage("cvat-sdk", "Talking to a CVAT server", "cvat") from error
    try:
        with _connected(make_client, url) as client:
            token = core.client.AccessTokenCredentials(login.token) if login.token else None
            client.login(token or (login.user, login.password))
            yield client
    except ApiException as error:
        hint = "Check the access token, or user and password." if error.status in (401, 403) else "Look at its log."
        raise EdgesegError(f"CVAT at {url} answered {error.status} {error.reason}.", hint) from None
    except (HTTPError, core.exceptions.CvatSdkException, OSError) as error:
        raise EdgesegError(f"CVAT at {url} failed: {first_line(error)}.", "Is it the address of the server?") from None


def _connected(make_client: Callable[[str], Any], url: str) -> Any:
    """The SDK's client of that server; EdgesegError where what answers is no CVAT, which the SDK does not expect."""
    try:
        return make_client(url)
    except (TypeError, ValueError, AssertionError) as error:
        raise EdgesegError(f"{url} is no CVAT server: {first_line(error)}.", "Give the address of one.") from None
