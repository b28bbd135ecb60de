"""redact: the one function that hides credentials in what leaves the program: logs, errors, JSON, metrics.

Two ways at once. By their look: what stands before the `@` of an address, and the value of every parameter that is not
known to be harmless. And by name: what a URI of this process has as password, parameter or token is hidden wherever it
turns up, such as in a message of a library. A secret of fewer than SHORTEST characters is hidden by its look only.
"""

from __future__ import annotations

import re
import urllib.parse

HIDDEN = "***"
SHORTEST = 4
# What `#` may start behind an address.
OWN_OPTIONS = (
    *("transport", "timeout", "max_megapixels", "format", "every", "bitrate_kbps", "clock"),
    *("on", "image", "discovery", "ca"),
)
# Parameters whose value is shown: options of files and servers here, and what cameras commonly call their streams.
HARMLESS = frozenset(
    (
        *OWN_OPTIONS,
        *("size", "fps", "seed", "frames", "night", "fog", "width", "height", "live", "loop", "masks", "overlay"),
        *("quality", "rotate_mb", "overwrite", "segment", "keep", "allow"),
        *("snapshot", "clip", "memory_mb", "encoder"),
        *("camera", "cam", "channel", "stream", "subtype", "resolution", "profile", "codec"),
        *("compression", "videocodec", "unicast", "proto", "room"),
    )
)
SCHEME = r"(?:webhook\+)?https?|rtsps?|rtmps?|mjpeg|udp|tcp|srt|ftp|wss?|mqtts?"
# With the usual slips of the pen, too: rtsp:/user, rtsp//user, rtsp:user.
TO_LAST_AT = re.compile(rf"(\w://|\b(?:{SCHEME})(?::/?(?!/)|//)).*@", re.IGNORECASE)
USER_ALONE = re.compile(r"[^\s/:@'\"]+:(?!/)[^\s@]*@")
# `user:password` where an address has `host:port`: its @ was forgotten.
NO_PORT = re.compile(r"(\w://)[^\s/:@?#'\"\[\]]+:(?!\d{0,5}(?:[/?#\s'\",:;).]|$))[^\s/?#'\"]*")
WEBHOOK_PATH = re.compile(r"(webhook\+https?://[^/\s?#]*)/[^\s#?'\"]+", re.IGNORECASE)
PATH_TOKEN = re.compile(r"(?<=/)(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{20,}(?=[/?#\s'\"]|$)")
PARAMETER = re.compile(rf"([?&#;])([\w.\[\]-]+)=((?:[^&;\s'\"#]|#(?!(?:{'|'.join(OWN_OPTIONS)})=))*)")
_known: set[str] = set()


def redact(text: str) -> str:
    """`text`, of one or more lines, without credentials. Doing it again changes nothing."""
    for secret in sorted(_known.copy(), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = TO_LAST_AT.sub(rf"\1{HIDDEN}@", text)
    text = USER_ALONE.sub(f"{HIDDEN}@", text)
    text = NO_PORT.sub(rf"\1{HIDDEN}", text)
    text = WEBHOOK_PATH.sub(rf"\1/{HIDDEN}", text)
    if "://" in text:
        text = PATH_TOKEN.sub(HIDDEN, text)
    return PARAMETER.sub(lambda m: m[0] if m[2].lower() in HARMLESS else f"{m[1]}{m[2]}={HIDDEN}", text)


def redact_uri(text: str) -> str:
    """A text that is one URI, which may hold spaces."""
    return redact(" ".join(text.splitlines()).replace(" ", "\0")).replace("\0", " ")


def redact_all(value: object) -> object:
    """Every string in plain values (dict, list, tuple), the keys left alone."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: redact_all(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact_all(each) for each in value]
    return value


def remember(scheme: str, rest: str) -> None:
    """Hide the secrets of the URI `scheme://rest` from now on, however they are encoded."""
    user, mark, address = rest.rpartition("@")
    secrets = [user.partition(":")[2], user] if mark else []
    path = re.split(r"[?#]", address, maxsplit=1)[0]
    if scheme.startswith("webhook"):
        secrets += [part for part in path.split("/")[1:] if len(part) >= 2 * SHORTEST or re.search(r"\d", part)]
    secrets += [m[3] for m in PARAMETER.finditer(address.replace(" ", "\0")) if m[2].lower() not in HARMLESS]
    for secret in (each.replace("\0", " ") for each in secrets):
        for form in (secret, urllib.parse.unquote(secret), urllib.parse.quote(secret), urllib.parse.quote(secret, "")):
            if len(form) >= SHORTEST and form != HIDDEN:
                _known.add(form)
