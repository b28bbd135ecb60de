"""A server as it is written first: a FastAPI handler around the engine. python -m peers.fastapi_handler BUNDLE PORT

One image at a time, with the runtime's threads for one (latency mode); no queue, limits or errors.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

from edgeseg import open_segmenter
from edgeseg.images import decode_image, palette_png

PATH = "/segment"


def request(jpeg: bytes) -> bytes:
    return jpeg


def app(bundle: Path) -> Any:
    from fastapi import Body, FastAPI, Response

    segmenter = open_segmenter(bundle)
    one = threading.Lock()
    api = FastAPI()

    def segment(body: bytes = Body(media_type="image/jpeg")) -> Any:
        image = decode_image(body, Path("x"))
        with one:
            result = segmenter(image)
        return Response(palette_png(result.classmap, segmenter.spec.palette), media_type="image/png")

    segment.__annotations__ = {"body": bytes, "return": Response}  # FastAPI reads them as they are, not as text
    api.add_api_route(PATH, segment, methods=["POST"], response_class=Response)
    return api


def main() -> None:
    import uvicorn

    uvicorn.run(app(Path(sys.argv[1])), port=int(sys.argv[2]), log_level="warning")


if __name__ == "__main__":
    main()
