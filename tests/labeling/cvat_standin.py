"""What edgeseg needs of a CVAT server, on 127.0.0.1: the REST calls that CVAT's own SDK makes for a task.

Not CVAT: it stores what it gets, checks the protocol, and gives the annotations back. Written from the SDK's requests.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "right-token"
ABOUT = {"name": "CVAT", "description": "", "version": "2.80.0", "logo_url": "", "subtitle": ""}
USER = {"id": 1, "url": "http://x", "username": "me", "first_name": "", "last_name": ""}


class StandIn(ThreadingHTTPServer):
    """`task`: what was created; `frames`: content by name; `annotations`: the XML; `finish`: the fields sent last."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.task: dict[str, Any] = {}
        self.frames: dict[str, bytes] = {}
        self.annotations = b""
        self.finish: dict[str, Any] = {}
        self.broken = False
        self.about: dict[str, str] = ABOUT
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> StandIn:
        Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: StandIn

    def do_GET(self) -> None:
        path, _ = self._path()
        if path == "/api/server/about":
            self._json(self.server.about)
        elif not self._allowed():
            self._json({"detail": "Invalid token."}, 401)
        elif found := re.fullmatch(r"/api/requests/(\w+)", path):
            result = {"result_url": f"{self.server.url}/api/tasks/7/dataset?file=1"} if found[1] == "export" else {}
            kind = {"type": "export:dataset" if result else "create:task", "target": "task"}
            self._json({"id": found[1], "status": "finished", "message": "", "operation": kind,
                        "created_date": "2026-01-01T00:00:00Z", **result})  # fmt: skip
        elif path == "/api/tasks/7/dataset":
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as archive:
                archive.writestr("annotations.xml", self.server.annotations)
            self._answer(200, buffer.getvalue(), {"Content-Type": "application/zip"})
        else:
            self._json(self._task() if path == "/api/tasks/7" else {}, 200 if path == "/api/tasks/7" else 404)

    def do_POST(self) -> None:
        path, query = self._path()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self._allowed():
            self._json({"detail": "Invalid token."}, 401)
        elif self.server.broken:
            self._json({"detail": "disk full"}, 507)
        elif path == "/api/tasks":
            self.server.task = json.loads(body)
            self._json(self._task(), 201)
        elif path == "/api/tasks/7/dataset/export":
            assert (query["format"], query["save_images"]) == (["CVAT for images 1.1"], ["False"]), query
            self._json({"rq_id": "export"}, 202)
        elif "Upload-Length" in self.headers:  # TUS: a file is announced
            self._answer(201, b"", {"Location": f"{self.server.url}{path}file", "Upload-Filename": "annotations.xml"})
        elif "Upload-Multiple" in self.headers:
            self.server.frames |= {name: data for name, data in self._parts(body) if name}
            self._answer(200, b"")
        elif "Upload-Finish" in self.headers:
            fields = {"data": dict(self._parts(body, True))} if path.endswith("/data") else {"annotations": query}
            self.server.finish |= fields
            self._json({"rq_id": "done"}, 202)
        else:
            assert "Upload-Start" in self.headers, (path, dict(self.headers))
            self._answer(202, b"")

    def do_PATCH(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Upload-Offset"] == "0"
        self.server.annotations = data
        self._answer(204, b"", {"Upload-Offset": str(len(data))})

    def _path(self) -> tuple[str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        keep = parts.path if self.command == "POST" and "Upload-Length" in self.headers else parts.path.rstrip("/")
        return keep, parse_qs(parts.query)

    def _allowed(self) -> bool:
        return self.headers.get("Authorization", "") == f"Bearer {TOKEN}"

    def _parts(self, body: bytes, fields: bool = False) -> list[tuple[str, Any]]:
        """(file name, content) of a multipart body; with `fields` (name, text)."""
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        message = BytesParser().parsebytes(head + body)
        if not message.is_multipart():
            return list(json.loads(body).items()) if fields else []
        parts = [part for part in message.get_payload() if not isinstance(part, str)]
        if fields:
            return [(str(p.get_param("name", header="content-disposition")), p.get_payload()) for p in parts]
        return [((p.get_filename() or "").rpartition("/")[2], p.get_payload(decode=True)) for p in parts]

    def _task(self) -> dict[str, Any]:
        return {"id": 7, "name": self.server.task.get("name", ""), "url": f"{self.server.url}/api/tasks/7",
                "mode": "annotation", "owner": USER, "size": len(self.server.frames), "dimension": "2d",
                "jobs": {"url": self.server.url, "count": 1, "completed": 0, "validation": 0},
                "labels": {"url": self.server.url}}  # fmt: skip

    def _json(self, value: object, status: int = 200) -> None:
        self._answer(status, json.dumps(value).encode(), {"Content-Type": "application/vnd.cvat+json"})

    def _answer(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass
