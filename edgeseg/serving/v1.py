"""The API of its own: POST /v1/segment, GET /v1/models, reload and rollback."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edgeseg.serving import answers, body
from edgeseg.serving.answers import Answer, Wanted
from edgeseg.serving.client import BUNDLE, TIMES, UNDECIDED
from edgeseg.serving.errors import BAD_REQUEST, FORBIDDEN, TOO_LARGE, HttpError
from edgeseg.serving.models import Change, Model, Served
from edgeseg.serving.service import Service


class V1:
    """Handlers of /v1."""

    def __init__(self, service: Service):
        self._service = service

    async def segment(self, request: Request) -> Response:
        """Segment an image, or several of a multipart form."""
        service, query = self._service, request.query_params
        model = service.models.get(query.get("model"))
        wanted = Wanted.of(query, request.headers.get("accept", "*/*"))
        with service.memory.held() as share:
            content = await body.read(request, service.settings, share)
            uploads = body.uploads(content, request.headers.get("content-type", ""))
            if not uploads:
                raise HttpError(BAD_REQUEST, "The form holds no file.", "Send images as files of a multipart form.")
            if len(uploads) > (most := service.settings.max_batch):
                raise HttpError(
                    TOO_LARGE,
                    f"The form holds {len(uploads)} images.",
                    f"At most {most} at once.",
                )
            for upload in uploads:
                share.take(body.memory_of(body.check(upload, service.settings)))
            with model.admitted(len(uploads)):
                work = asyncio.gather(*(self._one(upload, model, wanted) for upload in uploads))
                done = await service.in_time(work)
        parts = [answer for answer, _ in done]
        several = request.headers.get("content-type", "").lower().startswith("multipart/") and len(parts) > 1
        answer = answers.several(parts, [upload.name for upload in uploads]) if several else parts[0]
        return Response(answer.body, media_type=answer.kind, headers=_headers(done[0][1]))

    async def _one(self, upload: body.Upload, model: Model, wanted: Wanted) -> tuple[Answer, Served]:
        service = self._service
        image = await service.in_pool(body.decode, upload)
        served = await model.segment(image, wanted.margin)
        service.metrics.segmented(model.name, served.result)
        return await service.in_pool(answers.single, served, wanted, model.name), served

    async def models(self, request: Request) -> JSONResponse:
        """The models that are served; the first one is meant where none is named."""
        return JSONResponse({"models": [about(model) for model in self._service.models]})

    async def streams(self, request: Request) -> JSONResponse:
        """Running streams that the page can show, as --live names them."""
        live = self._service.settings.live
        return JSONResponse({"streams": [{"name": stream.name, "url": stream.url} for stream in live]})

    async def model(self, request: Request) -> JSONResponse:
        """One model: its bundle, input, classes and colors."""
        return JSONResponse(about(self._service.models.get(request.path_params["name"])))

    async def reload(self, request: Request) -> JSONResponse:
        """Read the bundle's folder again. What it holds serves once its golden frames came out right; else the bundle
        before goes on serving, and the answer says why."""
        return JSONResponse(_changed(await self._service.change(self._may_change(request), "reload")))

    async def rollback(self, request: Request) -> JSONResponse:
        """Serve the bundle again that was served before the last change."""
        return JSONResponse(_changed(await self._service.change(self._may_change(request), "rollback")))

    def _may_change(self, request: Request) -> Model:
        """The model that the request names; a server without a token lets nobody change anything."""
        if not self._service.settings.token:
            raise HttpError(
                FORBIDDEN, "This server has no token, so nobody may change what it serves.",
                "Start it with --token-file, or send it SIGHUP.",
            )  # fmt: skip
        return self._service.models.get(request.path_params["name"])


def about(model: Model) -> dict[str, Any]:
    """What clients need to know of a model."""
    bundle = model.worker.bundle
    spec = bundle.spec
    return {
        "name": model.name,
        "bundle": {
            "name": bundle.name,
            "digest": bundle.digest,
            "target": bundle.target,
            "precision": bundle.precision.value,
            "bytes": bundle.size,
        },
        "backend": model.worker.backend,
        "slots": model.worker.slots,
        "classes": [
            {"id": i, "name": name, "color": list(color)}
            for i, (name, color) in enumerate(zip(spec.classes, spec.palette))
        ],
        "spec": spec.to_dict(),
    }


def _headers(served: Served) -> dict[str, str]:
    times = ",".join(f"{stage}={1e3 * seconds:.3f}" for stage, seconds in served.result.times.items())
    decision = served.result.decision
    undecided = {UNDECIDED: quote(str(decision), safe=", ().")} if decision and decision.undecided else {}
    return {BUNDLE: served.bundle.digest, TIMES: times, **undecided}


def _changed(change: Change) -> dict[str, Any]:
    return {"model": change.model, "bundle": change.digest, "before": change.before, "changed": change.changed}
