"""LitServe around the engine, as its documentation shows it: python -m peers.litserve_handler BUNDLE PORT

Images go as base64 in JSON, which is what its default decoding takes; one worker, as for a server with one device.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

from edgeseg import open_segmenter
from edgeseg.images import decode_image, palette_png

try:  # workers import this module again, so the class cannot be made in main()
    from litserve import LitAPI
except ImportError:
    LitAPI = object

PATH = "/predict"


def request(jpeg: bytes) -> bytes:
    return json.dumps({"image": base64.b64encode(jpeg).decode()}).encode()


class Api(LitAPI):  # type: ignore[misc, valid-type, unused-ignore]
    def __init__(self, bundle: Path):
        super().__init__()
        self.bundle = bundle

    def setup(self, device: str) -> None:
        self.segmenter = open_segmenter(self.bundle)

    def decode_request(self, request: dict[str, str]) -> Any:
        return decode_image(base64.b64decode(request["image"]), Path("x"))

    def predict(self, image: Any) -> Any:
        return self.segmenter(image).classmap

    def encode_response(self, classmap: Any) -> dict[str, str]:
        return {"png": base64.b64encode(palette_png(classmap, self.segmenter.spec.palette)).decode()}


def main() -> None:
    import litserve

    server = litserve.LitServer(Api(Path(sys.argv[1])), accelerator="cpu", timeout=60)
    server.run(port=int(sys.argv[2]), host="127.0.0.1", generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
