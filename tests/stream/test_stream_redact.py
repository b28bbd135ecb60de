"""Credentials: whatever a user types and wherever it goes, nothing that looks like one is printed."""

from __future__ import annotations

import json
import logging
import string
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_helpers import SPEC
from typer.testing import CliRunner

from edgeseg.cli import app, logs
from edgeseg.errors import EdgesegError
from edgeseg.stream import config, sinks, sources
from edgeseg.stream import redact as redaction
from edgeseg.stream.redact import redact, redact_all, redact_uri
from edgeseg.stream.uri import Uri


@pytest.fixture(autouse=True)
def _nothing_remembered():
    redaction._known.clear()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://admin:p@ss/w0rd@cam:554/live", "rtsp://***@cam:554/live"),
        ("rtsp://cam/live?user=admin&password=x&channel=1", "rtsp://cam/live?user=***&password=***&channel=1"),
        ("http://cam/a?api_key=abc#timeout=5", "http://cam/a?api_key=***#timeout=5"),
        ("cannot open rtsp://a:b@cam/x: refused", "cannot open rtsp://***@cam/x: refused"),
        ("http://cam/a?u=admin&p=hunter2&channel=2", "http://cam/a?u=***&p=***&channel=2"),
        (
            "webhook+https://hooks.example.com/services/T01/B02/x#every=5",
            "webhook+https://hooks.example.com/***#every=5",
        ),
        ("https://h/hook/8f3a9b2c7d6e5f4a1b2c/live", "https://h/hook/***/live"),
        ("mjpeg://bob:pw@127.0.0.1:8090?quality=5", "mjpeg://***@127.0.0.1:8090?quality=5"),
        ("Video rtsp:/bob:pw@cam does not exist.", "Video rtsp:/***@cam does not exist."),
        ("rtsp//bob:p w@cam/x", "rtsp//***@cam/x"),
        ("rtsp:bob:pw@cam/x", "***@cam/x"),
        ("bob:pw@cam/x", "***@cam/x"),
        ("rtsp://bob:hunter2/live", "rtsp://***/live"),
        ("rtsp://cam:554: refused", "rtsp://cam:554: refused"),
        ("http://[::1]:8080/live", "http://[::1]:8080/live"),
        ("rtsp://cam/x#tiemout=hunter2", "rtsp://cam/x#tiemout=***"),
        ("synthetic://street?seed=7", "synthetic://street?seed=7"),
        ("clips/day@night.mp4", "clips/day@night.mp4"),
        ("12:30:00 Warning: 3 of 4 frames, 25.0 FPS", "12:30:00 Warning: 3 of 4 frames, 25.0 FPS"),
    ],
)
def test_credentials_are_never_shown(text, shown):
    assert redact(text) == shown == redact(shown)


# Letters that appear in no other part of the addresses below, so that any piece of a password is recognized.
SECRET = st.text("QXZ#@/:?&=% %;\\\"'\t", min_size=1).filter(lambda text: set(text) & set("QXZ"))


@settings(deadline=None)
@given(user=SECRET, password=SECRET, tail=st.sampled_from(["", "/live", "/live?channel=1", "/live#timeout=5"]))
def test_no_part_of_a_user_or_password_is_shown(user, password, tail):
    redaction._known.clear()
    text = f"rtsp://{user}:{password}@cam:554{tail}"
    for shown in (redact(text), redact(f"cannot open {text}: refused"), str(Uri.parse(text))):
        assert not set(shown) & set("QXZ")
        assert shown.startswith(("rtsp://***@cam:554", "cannot open rtsp://***@cam:554"))
    for module, form in ((sources, "rtsp"), (sources, "udp"), (sinks, "webhook+http"), (sinks, "mjpeg")):
        uri = Uri.parse(text.replace("rtsp", form, 1))
        try:  # the options and the address are read; nothing is connected
            opened = module.find(uri.text)[0].open(uri, *([sinks.Info(SPEC)] if module is sinks else []))
            opened.close()
        except EdgesegError as error:
            assert not set(str(error)) & set("QXZ"), str(error)


@settings(deadline=None)
@given(
    password=SECRET.filter(lambda text: not set(text) & set("&;@ \t'\"")),
    tail=st.sampled_from(["", "&channel=1", "#timeout=5"]),
)
def test_no_part_of_a_secret_parameter_is_shown(password, tail):
    redaction._known.clear()
    text = f"http://cam/live?user=QX&password={password}{tail}"
    for shown in (redact(text), str(Uri.parse(text))):
        assert not set(shown) & set("QXZ")
        assert shown == f"http://cam/live?user=***&password=***{tail}"
    try:
        sources.open(text).close()
    except EdgesegError as error:
        assert not set(str(error)) & set("QXZ"), str(error)


WORD = st.text(string.ascii_letters + string.digits + "#@/:?&=% +\u00e4", min_size=8, max_size=24).map("zQx".__add__)
FORMS = (
    "rtsp://u:{}@cam/live",
    "rtsps://{}@cam/live#transport=udp",
    "http://cam/?u=me&p={}",
    "mjpeg://me:{}@127.0.0.1:0",
    "rtsp:/me:{}@cam",
    "webhook+http://me:{}@h/x",
    "mqtt://me:{}@h/x",
    "mqtts://me:{}@h:8883/x/y",
    "udp://me:{}@h:1#nonsense=1",
)


@settings(deadline=None, max_examples=60)
@given(WORD, st.sampled_from(FORMS))
def test_no_secret_survives_any_way_out(secret, form):
    """As a source and a sink, in every message; and whatever a library makes of it afterwards."""
    redaction._known.clear()
    text = form.format(secret)
    messages = [redact_uri(text)]
    with suppress(EdgesegError):  # one slash is refused
        messages.append(str(Uri.parse(text)))
    for open_uri in (lambda: sources.open(text), lambda: sinks.open(text, sinks.Info(SPEC)), lambda: config.load(
        Path("none.toml"), streams=config.from_options([text], [text])
    )):  # fmt: skip
        try:
            open_uri().close()
        except EdgesegError as error:
            messages += [redact(error.what), redact(error.hint)]
    record = logging.LogRecord("edgeseg", logging.ERROR, "", 0, "%s", (f"cannot read {text}",), None)
    messages += [logs.TextFormatter(True).format(record), logs.JsonFormatter().format(record)]
    messages += [json.dumps(redact_all({"streams": [{"source": text}]}))]
    for message in messages:
        assert "zQx" not in message, message


@pytest.mark.parametrize("text", ["rtsp:/u:hunter2@cam", "http:/h/x.jpg", "webhook+http:/h"])
def test_one_slash_is_a_typo_and_no_folder(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for open_uri in (sources.open, lambda text: sinks.open(text, sinks.Info(SPEC))):
        with pytest.raises(EdgesegError, match=r"has one slash behind its scheme.\nWrite two") as caught:
            open_uri(text)
        assert "hunter2" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_secret_is_recognized_without_its_uri():
    Uri.parse("rtsp://admin:hunter 2#x@cam/live")
    assert redact("401 for admin with hunter 2#x, hunter%202%23x") == "401 for admin with ***, ***"
    Uri.parse("webhook+https://h/services/T0123/longtoken")
    assert redact("POST /services/T0123/longtoken") == "POST /***/***/***"


@pytest.mark.parametrize(
    "words",
    [
        ["--sorce", "rtsp://u:hunter2@cam"],
        ["--source", "a.avi", "rtsp://u:hunter2@cam", "rtsp://u:hunter2@cam2"],
        ["--deadline", "rtsp://u:hunter2@cam"],
        ["--source", "rtsp:/u:hunter2@cam"],
        ["--source", "rtsp://u:hunter2"],
        ["--source", "x=rtsp//u:hunter2@cam/a"],
        ["--source", "http://cam/?u=me&p=hunter2#transport=tcp"],
        ["--source", "http://cam/#token=hunter2"],
        ["--sink", "mjpeg://u:hunter2@127.0.0.1:1", "--source", "synthetic://street?frames=1"],
        ["--metrics", "u:hunter2@127.0.0.1", "--source", "synthetic://street?frames=1"],
    ],
)
def test_no_command_line_shows_a_credential(words, monkeypatch, capfd):
    from edgeseg import cli

    for debug in ([], ["--debug"]):
        monkeypatch.setattr(sys, "argv", ["edgeseg", *debug, "run", "nowhere", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        shown = "".join(capfd.readouterr())
        assert ended.value.code == 2 and shown and "hunter" not in shown, shown


@pytest.mark.parametrize(
    "text",
    [
        "source = 'a.avi'\nsinks = 'rtsp://u:hunter2@h/x'",
        "source = ['rtsp://u:hunter2@h/x']",
        "source = {user = 'admin', password = 'hunter2'}",
        "source = 'rtsp://u:hunter2@h/x#pasword=hunter2'\nsniks = ['hunter2']",
        "source = 'rtsp:/u:hunter2@h/x'\nsinks = ['mjpeg://u:hunter2@h']",
    ],
)
def test_no_config_shows_a_credential(tmp_path, text, caplog):
    (tmp_path / "s.toml").write_text(f"bundle = 'nowhere'\n[[stream]]\n{text}\n")
    done = CliRunner().invoke(app, ["run", "--config", str(tmp_path / "s.toml")])
    assert done.exception is not None
    shown = f"{done.output} {getattr(done.exception, 'what', '')} {getattr(done.exception, 'hint', '')}"
    assert "hunter" not in redact(shown), shown
