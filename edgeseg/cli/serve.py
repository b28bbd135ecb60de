"""serve: bundles over HTTP."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli import options, signals
from edgeseg.cli.common import status
from edgeseg.cli.run import notify_systemd
from edgeseg.errors import FileError, MissingPackage, OptionError
from edgeseg.files import require_file

if TYPE_CHECKING:
    from edgeseg.serving.server import Tls
    from edgeseg.stream.http import Address

log = logging.getLogger(__name__)
app = typer.Typer()
EXAMPLE = "Example: edgeseg serve models/street/street-int8 --port 8080"
TOKEN_VARIABLE = "EDGESEG_TOKEN"
TOKEN_HINT = "Expected at least 8 ASCII characters without spaces."


@app.command(rich_help_panel=options.RUN, epilog=EXAMPLE)
def serve(
    bundles: Annotated[
        list[str],
        typer.Argument(
            metavar="BUNDLE...",
            help="Bundles to serve, as FOLDER or NAME=FOLDER; the first is meant where a request names none.",
            show_default=False,
        ),
    ],
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 for a free one.")] = 8080,
    mode: Annotated[
        str, typer.Option(help="throughput (several images in work) or latency (one, the fastest answer).")
    ] = "throughput",
    threads: Annotated[
        int, typer.Option(min=0, help="CPU threads for inference; 0: as many as this process may use.")
    ] = 0,
    queue: Annotated[int, typer.Option(min=0, help="Images per model that may wait; more are refused (429).")] = 32,
    deadline: Annotated[float, typer.Option(min=0.01, help="Seconds until a request without answer gets 504.")] = 10.0,
    max_megabytes: Annotated[int, typer.Option(min=1, help="Largest body of a request.")] = 32,
    max_megapixels: Annotated[float, typer.Option(min=0.001, help="Largest image, before it is decoded.")] = 50.0,
    max_memory: Annotated[int, typer.Option(min=16, help="MiB that all requests together may hold.")] = 1024,
    drain: Annotated[float, typer.Option(min=0, help="Seconds that requests in work may take after SIGTERM.")] = 30.0,
    token_file: Annotated[
        Path | None, typer.Option(help=f"File with the token that requests must have [default: ${TOKEN_VARIABLE}].")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name that clients may call this server by (Host); repeatable.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Serve HTTPS with this certificate (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Private key of --tls-cert (PEM).")] = None,
    require_signature: Annotated[
        Path | None, typer.Option(help="A public key; refuse bundles that its owner did not sign.")
    ] = None,
    live: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=URL",
            help="A running stream for the page: http://HOST:PORT of its mjpeg:// sink; repeatable.",
        ),
    ] = None,
    min_confidence: options.MinConfidence = None,
    review_class: options.ReviewClass = None,
    bundle_name: options.BundleName = None,
    min_version: options.MinVersion = None,
) -> None:
    """Serve bundles over HTTP: an API of its own, the Open Inference Protocol (KServe v2), and a web page.

    SIGTERM ends it after the requests in work; SIGHUP reads the bundles again. See docs/how-to/serve.md.
    """
    _require_packages()
    from edgeseg.serving import models, server
    from edgeseg.serving.models import Models
    from edgeseg.serving.service import Service
    from edgeseg.serving.settings import Live, Settings
    from edgeseg.serving.worker import Opener
    from edgeseg.signature import Required

    if not require_signature and (bundle_name or min_version is not None):
        raise OptionError("A name or version of the bundle without a signature.", "Add --require-signature PUBLIC.pem.")
    required = Required(require_signature, bundle_name or "", min_version) if require_signature else None
    settings = Settings(
        queue=queue, deadline=deadline, max_bytes=max_megabytes << 20, max_pixels=round(max_megapixels * 1e6),
        max_memory=max_memory << 20, drain_seconds=drain, token=_token(token_file), hosts=tuple(allow_host or ()),
        live=tuple(map(Live.parse, live or ())),
    )  # fmt: skip
    tls = _tls(tls_cert, tls_key)
    address = _address(host, port, settings.hosts, settings.token)
    with signals.interruptible(), server.listen(address) as sock:
        with status("opening bundles"):
            opener = Opener(mode, threads, required, min_confidence, tuple(review_class or ()))
            opened = Models.open(models.places(bundles), opener, queue)
        service = Service(opened, settings)
        try:
            server.run(service, sock, host, tls, lambda: _ready(host, sock.getsockname()[1], tls is not None, opened))
        finally:
            service.close()
    log.info("ended")


def _ready(host: str, port: int, secure: bool, opened: object) -> None:
    names = ", ".join(model.name for model in opened)  # type: ignore[attr-defined]
    shown = f"[{host}]" if ":" in host else host
    log.info("serving %s at http%s://%s:%d", names, "s" * secure, shown, port)
    notify_systemd("READY=1")


def _require_packages() -> None:
    from edgeseg.telemetry.families import require_client

    for package in ("fastapi", "uvicorn"):
        try:
            __import__(package)
        except ImportError as error:
            raise MissingPackage(package, "Serving bundles", "serve") from error
    try:
        require_client()
    except MissingPackage as error:
        raise MissingPackage("prometheus-client", "Serving bundles", "serve") from error


def _token(path: Path | None) -> str:
    """The token to ask for; "" for none. It is never shown."""
    if path is None:
        token = os.environ.get(TOKEN_VARIABLE, "")
        where = f"${TOKEN_VARIABLE}"
    else:
        where = str(path)
        try:
            token = require_file(path, "Token file").read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(f"Token file {path} cannot be read.", "Expected one line of ASCII text.") from error
    if token and (len(token) < 8 or not token.isascii() or not token.isprintable() or " " in token):
        raise OptionError(f"The token of {where} is not usable.", TOKEN_HINT)
    if path is not None and not token:
        raise OptionError(f"The token of {where} is empty.", TOKEN_HINT)
    return token


def _tls(certificate: Path | None, key: Path | None) -> Tls | None:
    from edgeseg.serving.server import Tls

    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise OptionError("--tls-cert and --tls-key belong together.", "Give both.")
    tls = Tls(certificate, key)
    tls.check()
    return tls


def _address(host: str, port: int, names: tuple[str, ...], token: str) -> Address:
    from edgeseg.stream.http import Address

    return Address(host.strip("[]"), port, names, token)
