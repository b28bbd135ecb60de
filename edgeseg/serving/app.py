"""The ASGI application: routes of all APIs, the page, and the OpenAPI document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from edgeseg import __version__
from edgeseg.errors import EdgesegError, did_you_mean
from edgeseg.serving import openapi
from edgeseg.serving.errors import NOT_FOUND, UNAVAILABLE, HttpError
from edgeseg.serving.guard import App, Guard, rendered
from edgeseg.serving.service import Service
from edgeseg.serving.v1 import V1
from edgeseg.serving.v2 import V2

PAGE = Path(__file__).with_name("page")
TYPES = {".js": "text/javascript", ".css": "text/css"}
PAGE_FILES = {path.name: TYPES[path.suffix] for path in sorted(PAGE.iterdir()) if path.suffix in TYPES}


def create(service: Service, host: str) -> App:
    """Everything behind the Guard; `host`: the name that this server listens at."""
    api = FastAPI(title="edgeseg", version=__version__, docs_url=None, redoc_url=None)  # those load from a CDN
    _add_v1(api, V1(service))
    _add_v2(api, V2(service))
    _add_operations(api, service)
    _add_page(api)
    api.add_exception_handler(HTTPException, _http_exception)
    for kind in (EdgesegError, Exception):
        api.add_exception_handler(kind, _exception)
    document = openapi.document(api)
    api.openapi = lambda: document  # type: ignore[method-assign, unused-ignore]
    return Guard(api, service.settings, host, service.traffic, service.metrics)


def _add_v1(api: FastAPI, v1: V1) -> None:
    api.add_api_route("/v1/segment", v1.segment, methods=["POST"], tags=["segment"], **openapi.SEGMENT)
    api.add_api_route("/v1/models", v1.models, methods=["GET"], tags=["models"], **openapi.MODELS)
    api.add_api_route("/v1/models/{name}", v1.model, methods=["GET"], tags=["models"], **openapi.MODEL)
    api.add_api_route("/v1/streams", v1.streams, methods=["GET"], tags=["models"], **openapi.STREAMS)
    for verb, handler in (("reload", v1.reload), ("rollback", v1.rollback)):
        path = f"/v1/models/{{name}}/{verb}"
        api.add_api_route(path, handler, methods=["POST"], tags=["models"], **openapi.CHANGE)


def _add_v2(api: FastAPI, v2: V2) -> None:
    options: dict[str, Any] = {"tags": ["Open Inference Protocol"]}
    api.add_api_route("/v2", v2.server, methods=["GET"], **options, **openapi.V2_JSON)
    api.add_api_route("/v2/health/live", v2.live, methods=["GET"], **options, **openapi.HEALTH)
    api.add_api_route("/v2/health/ready", v2.ready, methods=["GET"], **options, **openapi.HEALTH)
    for place in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        api.add_api_route(place, v2.model, methods=["GET"], **options, **openapi.V2_MODEL)
        api.add_api_route(f"{place}/config", v2.config, methods=["GET"], **options, **openapi.V2_MODEL)
        api.add_api_route(f"{place}/ready", v2.model_ready, methods=["GET"], **options, **openapi.V2_MODEL_READY)
        api.add_api_route(f"{place}/infer", v2.infer, methods=["POST"], **options, **openapi.V2_INFER)


def _add_operations(api: FastAPI, service: Service) -> None:
    async def healthz(request: Request) -> Response:
        """Whether the server works: 503 once an engine hangs."""
        return JSONResponse({"alive": service.alive}, 200 if service.alive else UNAVAILABLE)

    async def readyz(request: Request) -> Response:
        """Whether the server takes requests: 503 while it is about to end."""
        return JSONResponse({"ready": service.ready}, 200 if service.ready else UNAVAILABLE)

    async def metrics(request: Request) -> Response:
        """Metrics for Prometheus."""
        kind, text = service.metrics.exposition()
        return Response(text, headers={"Content-Type": kind})

    options: dict[str, Any] = {"methods": ["GET"], "tags": ["operations"]}
    api.add_api_route("/healthz", healthz, **options, **openapi.HEALTH_JSON)
    api.add_api_route("/readyz", readyz, **options, **openapi.HEALTH_JSON)
    api.add_api_route("/metrics", metrics, **options, **openapi.METRICS)


def _add_page(api: FastAPI) -> None:
    async def index(request: Request) -> Response:
        return FileResponse(PAGE / "index.html", media_type="text/html")

    async def file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in PAGE_FILES:
            raise HttpError(NOT_FOUND, f"There is no file {name[:60]!r}.")
        return FileResponse(PAGE / name, media_type=PAGE_FILES[name])

    api.add_api_route("/", index, methods=["GET"], include_in_schema=False)
    api.add_api_route("/page/{name}", file, methods=["GET"], include_in_schema=False)


async def _exception(request: Request, error: Exception) -> Response:
    return rendered(error, request.scope)


async def _http_exception(request: Request, error: Exception) -> Response:
    """Of the router: an unknown path or method, shown like every other error."""
    assert isinstance(error, HTTPException)
    hint = did_you_mean(request.url.path[:80], openapi.PLACES) if error.status_code == NOT_FOUND else ""
    response = rendered(HttpError(error.status_code, f"{error.detail}.", hint), request.scope)
    response.headers.update(error.headers or {})
    return response
