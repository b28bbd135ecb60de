"""The Open Inference Protocol (KServe v2), so that clients of Triton and OpenVINO Model Server work unchanged.

One input of two: `image`, BYTES [1], the content of an image file; or `frame`, UINT8 [height, width, 3], BGR unless the
request's parameter `color` is RGB. Outputs: `classmap`, UINT8 at the model's size, which is the default;
`frame_classmap`, UINT8 at the image's size; `png`, BYTES [1], the latter as a palette PNG.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edgeseg import __version__
from edgeseg.images import Image, palette_png
from edgeseg.serving import body, tensors
from edgeseg.serving.body import Upload
from edgeseg.serving.errors import NOT_FOUND, TOO_LARGE, UNAVAILABLE, HttpError
from edgeseg.serving.models import Model, Served
from edgeseg.serving.service import Service
from edgeseg.serving.tensors import CLASSMAP, ENCODED, FRAME, FRAME_CLASSMAP, PICTURE, Parsed, Tensor

VERSION = "1"
EXTENSIONS = ["binary_tensor_data"]


class V2:
    """Handlers of /v2."""

    def __init__(self, service: Service):
        self._service = service

    async def server(self, request: Request) -> JSONResponse:
        """Metadata of the server."""
        return JSONResponse({"name": "edgeseg", "version": __version__, "extensions": EXTENSIONS})

    async def live(self, request: Request) -> Response:
        """Whether the server works."""
        return _state({"live": self._service.alive}, self._service.alive)

    async def ready(self, request: Request) -> Response:
        """Whether the server takes requests."""
        return _state({"ready": self._service.ready}, self._service.ready)

    async def model_ready(self, request: Request) -> Response:
        """Whether a model takes requests."""
        return _state({"name": self._model(request).name, "ready": self._service.ready}, self._service.ready)

    async def model(self, request: Request) -> JSONResponse:
        """Metadata of a model: its inputs, of which a request has one, and its outputs."""
        model = self._model(request)
        return JSONResponse(
            {
                "name": model.name,
                "versions": [VERSION],
                "platform": f"edgeseg_{model.worker.bundle.backend}",
                "inputs": [_tensor(ENCODED, "BYTES", [1]), _tensor(FRAME, "UINT8", [-1, -1, 3])],
                "outputs": _outputs(model),
            }
        )

    async def config(self, request: Request) -> JSONResponse:
        """What Triton's clients ask for besides: a model's configuration."""
        model = self._model(request)
        inputs = [("BYTES", ENCODED, [1]), ("UINT8", FRAME, [-1, -1, 3])]
        outputs = [(row["datatype"], row["name"], row["shape"]) for row in _outputs(model)]
        return JSONResponse(
            {
                "name": model.name,
                "platform": "edgeseg",
                "backend": model.worker.bundle.backend,
                "max_batch_size": 0,
                "input": [_configured(*row) for row in inputs],
                "output": [_configured(*row) for row in outputs],
            }
        )

    async def infer(self, request: Request) -> Response:
        """Segment one image."""
        service, model = self._service, self._model(request)
        with service.memory.held() as share:
            content = await body.read(request, service.settings, share)
            length = request.headers.get(tensors.HEADER)
            share.take(tensors.DECODED_JSON * tensors.json_size(content, length))
            parsed = await service.in_pool(tensors.parse, content, length)
            if isinstance(parsed.image, bytes):
                header = body.check(Upload("", parsed.image), service.settings)
                share.take(body.memory_of(header))
            elif parsed.image.size // 3 > service.settings.max_pixels:
                raise HttpError(TOO_LARGE, "The frame has too many pixels.", f"At most {service.settings.max_pixels}.")
            with model.admitted(1):
                served, answer = await service.in_time(self._work(parsed, model))
        service.metrics.segmented(model.name, served.result)
        return Response(answer.body, headers=answer.headers)

    async def _work(self, parsed: Parsed, model: Model) -> tuple[Served, tensors.InferAnswer]:
        service = self._service
        image = parsed.image
        frame = await service.in_pool(body.decode, Upload("", image)) if isinstance(image, bytes) else image
        served = await model.segment(frame)
        return served, await service.in_pool(_answer, served, parsed, model.name)

    def _model(self, request: Request) -> Model:
        version = request.path_params.get("version", VERSION)
        if version != VERSION:
            raise HttpError(NOT_FOUND, f"There is no version {version[:40]!r}.", f"The only one is {VERSION}.")
        return self._service.models.get(request.path_params["name"])


def _answer(served: Served, parsed: Parsed, name: str) -> tensors.InferAnswer:
    wanted = {output.name for output in parsed.request.wanted()}
    values: dict[str, Tensor] = {CLASSMAP: served.result.classmap}
    if wanted & {FRAME_CLASSMAP, PICTURE}:
        classes: Image = served.result.at_frame_size()
        values[FRAME_CLASSMAP] = np.ascontiguousarray(classes)
        if PICTURE in wanted:
            values[PICTURE] = palette_png(classes, served.bundle.spec.palette)
    return tensors.answer(parsed.request, name, VERSION, values)


def _state(document: dict[str, Any], good: bool) -> JSONResponse:
    return JSONResponse(document, 200 if good else UNAVAILABLE)


def _tensor(name: str, datatype: str, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape}


def _outputs(model: Model) -> list[dict[str, Any]]:
    spec = model.worker.spec
    return [
        _tensor(CLASSMAP, "UINT8", [spec.height, spec.width]),
        _tensor(FRAME_CLASSMAP, "UINT8", [-1, -1]),
        _tensor(PICTURE, "BYTES", [1]),
    ]


def _configured(datatype: str, name: str, dims: list[int]) -> dict[str, Any]:
    return {"name": name, "data_type": "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}", "dims": dims}
