"""Publisher: the client side of RTSP (RFC 2326) for one H.264 stream: ANNOUNCE, SETUP, RECORD, packets, TEARDOWN.

Not FFmpeg's RTSP muxer: PyAV keeps the interpreter's lock while FFmpeg connects, shakes hands and disconnects, so a
server that does not answer would stop every stream of the process for the whole time-out. Here nothing waits longer
than `timeout` seconds, and only the calling thread does.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import io
import re
import secrets
import socket
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from email.message import Message

from edgeseg.errors import OptionError, StreamError
from edgeseg.stream.uri import Uri

PORT = 554
CLOSE_SECONDS = 1.0
SESSION_SECONDS = 60.0
LONGEST_HEAD = 1 << 16
HASHES = {"MD5": "md5", "SHA-256": "sha256"}
TRANSPORTS = {"tcp": "RTP/AVP/TCP;unicast;interleaved=0-1", "udp": "RTP/AVP;unicast;client_port={}-{}"}


class Unreachable(StreamError):
    """The server does not answer or cannot be reached: it may be there later."""


def check(uri: Uri) -> urllib.parse.SplitResult:
    """The parts of rtsp://user:password@host:port/path, without our options; OptionError for anything else."""
    expected = "Expected rtsp://host:8554/path"
    try:
        parts = urllib.parse.urlsplit(uri.url())
        _ = parts.port
    except ValueError:  # its text would show a part of the password
        raise OptionError(f"{uri} is not an address.", expected) from None
    if not parts.hostname or not parts.path.strip("/") or re.search(r"\s", uri.url()):
        raise OptionError(f"{uri} lacks a host or a path.", expected)
    return parts


class Publisher:
    """One session: `announce` finds out whether the server accepts the stream, `record` starts it.

    `send` takes RTP and RTCP packets. All raise StreamError; `close` raises nothing and never hangs.
    """

    def __init__(self, uri: Uri, transport: str = "tcp", timeout: float = 5.0):
        self._uri = uri
        parts = check(uri)
        self._login = tuple(urllib.parse.unquote(part or "") for part in (parts.username, parts.password))
        self._address = (parts.hostname or "", parts.port or PORT)
        self._url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        self._transport = transport
        self._timeout = timeout
        self._sock: socket.socket | None = None
        self._datagrams: list[socket.socket] = []  # with UDP: for RTP and for RTCP
        self._channel = 0
        self._received = bytearray()
        self._challenge: tuple[str, dict[str, str]] | None = None
        self._number = 0
        self._session = ""
        self._keep_alive_every = SESSION_SECONDS / 2
        self._keep_alive_at = 0.0

    def announce(self, sdp: str) -> None:
        with self._network_errors("cannot be reached"):
            self._sock = socket.create_connection(self._address, self._timeout)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._request("OPTIONS", self._url)
            self._request("ANNOUNCE", self._url, {"Content-Type": "application/sdp"}, sdp)

    def record(self) -> None:
        with self._network_errors("broke off"):
            transport = TRANSPORTS[self._transport].format(*self._bind_datagrams())
            response = self._request("SETUP", f"{self._url}/streamid=0", {"Transport": f"{transport};mode=record"})
            session, _, rest = response.get("Session", "").partition(";")
            seconds = re.search(r"timeout=(\d+)", rest)
            self._session = session.strip()
            self._keep_alive_every = max(float(seconds[1]) if seconds else SESSION_SECONDS, 2.0) / 2
            self._use_transport(response.get("Transport", ""))
            self._request("RECORD", self._url, {"Range": "npt=0.000-"})
            self._keep_alive_at = time.monotonic() + self._keep_alive_every

    def send(self, packets: Sequence[bytes]) -> None:
        """Send RTP and RTCP packets; an RTCP packet is recognized by its type (200 to 207), as RFC 5761 does."""
        with self._network_errors("broke off"):
            assert self._sock is not None
            self._drain()
            data = bytearray()
            for packet in packets:
                control = 200 <= packet[1] <= 207
                if self._datagrams:
                    self._send_datagram(control, packet)
                else:
                    data += b"$" + bytes((self._channel + control,)) + len(packet).to_bytes(2, "big") + packet
            if time.monotonic() > self._keep_alive_at:
                data += self._encode_request("OPTIONS", self._url, {}, "")
                self._keep_alive_at = time.monotonic() + self._keep_alive_every
            self._sock.settimeout(self._timeout)
            self._sock.sendall(data)

    def close(self) -> None:
        """End the session and wait (CLOSE_SECONDS at most) until the server has read all that was sent."""
        sock, self._sock = self._sock, None
        with contextlib.suppress(OSError):
            if sock is not None and self._session:
                sock.settimeout(CLOSE_SECONDS)
                sock.sendall(self._encode_request("TEARDOWN", self._url, {}, ""))
                sock.shutdown(socket.SHUT_WR)
                until = time.monotonic() + CLOSE_SECONDS
                while sock.recv(1 << 16) and time.monotonic() < until:
                    pass
        self._session = ""
        for each in (*self._datagrams, *([sock] if sock else [])):
            each.close()
        self._datagrams = []

    def _bind_datagrams(self) -> list[int]:
        """With UDP: sockets on two ports in a row, the first one even (RFC 3550); returns the ports."""
        if self._transport != "udp":
            return []
        assert self._sock is not None
        for _ in range(50):
            pair = [socket.socket(self._sock.family, socket.SOCK_DGRAM) for _ in range(2)]
            self._datagrams = pair
            with contextlib.suppress(OSError, OverflowError):
                pair[0].bind(("", 0))
                port: int = pair[0].getsockname()[1]
                if port % 2 == 0:
                    pair[1].bind(("", port + 1))
                    return [port, port + 1]
            for each in pair:
                each.close()
        raise StreamError(f"{self._uri}: no two UDP ports in a row are free.", "Use #transport=tcp.")

    def _use_transport(self, given: str) -> None:
        """Follow the server's choice of ports or channels."""
        assert self._sock is not None
        channel = re.search(r"interleaved=(\d{1,3})", given)
        self._channel = min(int(channel[1]), 254) if channel else 0
        if not self._datagrams:
            return
        ports = re.search(r"server_port=(\d{1,5})-(\d{1,5})", given)
        if not ports:
            raise StreamError(f"{self._uri} accepts no stream over UDP.", "Use #transport=tcp.")
        host = self._sock.getpeername()[0]
        for each, port in zip(self._datagrams, ports.groups()):
            each.connect((host, int(port) % 65536))
            each.setblocking(False)

    def _send_datagram(self, control: bool, packet: bytes) -> None:
        # A full buffer or an unready port loses this packet, as UDP may; a lost server shows on the control connection.
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            self._datagrams[control].send(packet)

    def _drain(self) -> None:
        """Read and discard what the server sends meanwhile (reports, keep-alive replies), so that it does not block."""
        assert self._sock is not None
        self._sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while self._sock.recv(1 << 16):
                pass
            raise ConnectionResetError(0, "the server ended the connection")

    def _request(self, method: str, url: str, headers: Mapping[str, str] | None = None, body: str = "") -> Message:
        """Send a request and return the headers of its answer; with credentials if the server asks for them."""
        assert self._sock is not None
        tried = self._challenge
        while True:
            self._sock.settimeout(self._timeout)
            self._sock.sendall(self._encode_request(method, url, headers or {}, body))
            status, reason, answer = self._read_response()
            if status == 401 and self._challenge is tried and any(self._login):
                self._challenge = challenge(answer.get_all("WWW-Authenticate", []))
                if self._challenge is not None:
                    continue
            if status != 200:
                raise self._refused(status, reason)
            return answer

    def _encode_request(self, method: str, url: str, headers: Mapping[str, str], body: str) -> bytes:
        self._number += 1
        lines = [f"{method} {url} RTSP/1.0", f"CSeq: {self._number}", "User-Agent: edgeseg"]
        lines += [f"{key}: {value}" for key, value in headers.items()]
        lines += [f"Session: {self._session}"] if self._session else []
        lines += [f"Content-Length: {len(body.encode())}"] if body else []
        if self._challenge is not None:
            lines.append(f"Authorization: {authorization(self._challenge, self._login, method, url)}")
        return "\r\n".join([*lines, "", body]).encode()

    def _read_response(self) -> tuple[int, str, Message]:
        """(status, reason, headers) of the answer to the latest request; skips what else arrives."""
        until = time.monotonic() + self._timeout
        while True:
            head = self._receive(1, until)
            if head == b"$":  # an interleaved packet: channel, length, data
                self._receive(int.from_bytes(self._receive(3, until)[1:], "big"), until)
                continue
            while not head.endswith(b"\r\n\r\n") and len(head) < LONGEST_HEAD:
                head += self._receive(1, until)
            first, _, rest = head.partition(b"\r\n")
            found = re.match(r"RTSP/\d\.\d (\d{3}) ?(.*)", first.decode("latin-1"))
            if not found:
                raise StreamError(f"{self._uri} does not speak RTSP.", "Check the port of the address.")
            headers = http.client.parse_headers(io.BytesIO(rest))
            length = headers.get("Content-Length", "0").strip()
            self._receive(int(length) if length.isdecimal() else 0, until)
            if headers.get("CSeq", str(self._number)).strip() == str(self._number):
                return int(found[1]), found[2].strip(), headers

    def _receive(self, size: int, until: float) -> bytes:
        """The next `size` bytes from the server; TimeoutError after `until` (time.monotonic)."""
        assert self._sock is not None
        while len(self._received) < size:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._sock.settimeout(left)
            data = self._sock.recv(1 << 16)
            if not data:
                raise ConnectionResetError(0, "the server ended the connection")
            self._received += data
        data = bytes(self._received[:size])
        del self._received[:size]
        return data

    def _refused(self, status: int, reason: str) -> StreamError:
        if status in (401, 403):
            return StreamError(f"{self._uri} refuses these credentials.", "Check user and password; encode @ as %40.")
        if status == 404:
            return StreamError(f"{self._uri} does not exist on that server (404).", "Check the path of the address.")
        if status == 461:
            return StreamError(f"{self._uri} accepts no stream over {self._transport}.", "Try another #transport.")
        return StreamError(
            f"{self._uri} accepts no stream: {status} {reason}.",
            "Does the server allow publishing (RECORD) at this path?",
        )

    @contextlib.contextmanager
    def _network_errors(self, what: str) -> Iterator[None]:
        """Turn network errors into a StreamError; the session is over then, and close() sends no TEARDOWN."""
        try:
            yield
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            self._session = ""
            if isinstance(error, TimeoutError):
                message = f"{self._uri} has not responded for {self._timeout:g} s."
            else:
                message = f"{self._uri} {what}: {getattr(error, 'strerror', None) or type(error).__name__}."
            raise Unreachable(message, "Is the RTSP server on, and reachable? Check address and port.") from None
        except StreamError:
            self._session = ""
            raise


def challenge(offers: Sequence[str]) -> tuple[str, dict[str, str]] | None:
    """The best WWW-Authenticate that we can answer, as (scheme, fields): a Digest before Basic; None if none."""
    found: dict[str, tuple[str, dict[str, str]]] = {}
    for offer in offers:
        scheme, _, rest = offer.strip().partition(" ")
        fields = {key.lower(): a or b for key, a, b in re.findall(r'(\w+)=(?:"([^"]*)"|([^\s,]*))', rest)}
        if scheme.lower() == "basic" or fields.get("algorithm", "MD5").upper() in HASHES:
            found.setdefault(scheme.lower(), (scheme.lower(), fields))
    return found.get("digest") or found.get("basic")


def authorization(asked: tuple[str, dict[str, str]], login: tuple[str, ...], method: str, url: str) -> str:
    """The Authorization header that answers a challenge (RFC 7616, and RFC 2069 where no qop is asked for)."""
    scheme, fields = asked
    user, password = login
    if scheme == "basic":
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def digest(*parts: str) -> str:
        name = HASHES[fields.get("algorithm", "MD5").upper()]
        return hashlib.new(name, ":".join(parts).encode(), usedforsecurity=False).hexdigest()

    realm, nonce = fields.get("realm", ""), fields.get("nonce", "")
    who, what = digest(user, realm, password), digest(method, url)
    given = {"username": user, "realm": realm, "nonce": nonce, "uri": url}
    bare = ""
    if "auth" in fields.get("qop", "").split(","):
        given["cnonce"] = secrets.token_hex(8)
        bare = ", qop=auth, nc=00000001"
        given["response"] = digest(who, nonce, "00000001", given["cnonce"], "auth", what)
    else:
        given["response"] = digest(who, nonce, what)
    given |= {key: fields[key] for key in ("opaque", "algorithm") if key in fields}
    return "Digest " + ", ".join(f'{key}="{value}"' for key, value in given.items()) + bare
