"""A real RTSP server on loopback, run under the system's Python (GStreamer's bindings live there), not under pytest.

    /usr/bin/python3 rtsp_server.py PORT CLIP [--user U --password P] [--codec h264|h265] [--gop FRAMES] [--audio]

Serves CLIP once per connection as rtsp://127.0.0.1:PORT/live in real time, and prints `ready`. --audio: a tone as the
first stream, before the video. /sound is the tone alone.
Commands on standard input: `freeze` (keep the connection, send nothing), `thaw`, `quit`.
"""

import argparse
import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

ENCODING = "tune=zerolatency speed-preset=ultrafast key-int-max={gop}"
ENCODERS = {
    "h264": f"x264enc {ENCODING} ! rtph264pay name=pay0 config-interval=1",
    "h265": f"x265enc {ENCODING} ! rtph265pay name=pay0 config-interval=1",
    "mjpeg": "jpegenc ! rtpjpegpay name=pay0",
}
TONE = "audiotestsrc is-live=true ! audioconvert ! audioresample ! alawenc ! rtppcmapay name=pay0"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port")
    parser.add_argument("clip")
    parser.add_argument("--user")
    parser.add_argument("--password")
    parser.add_argument("--codec", default="h264")
    parser.add_argument("--gop", type=int, default=10, help="frames from one key frame to the next")
    parser.add_argument("--audio", action="store_true")
    args = parser.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer(address="127.0.0.1", service=args.port)
    factory = GstRtspServer.RTSPMediaFactory()
    encoder = ENCODERS[args.codec].format(gop=args.gop)
    if args.audio:
        encoder = f"{encoder.replace('pay0', 'pay1')} {TONE}"
    factory.set_launch(
        f"( filesrc location={args.clip} ! decodebin ! videoconvert ! video/x-raw,format=I420 ! "
        f"identity name=gate sync=true ! {encoder} )"
    )
    factory.set_shared(True)
    frozen = threading.Event()
    factory.connect("media-configure", lambda _, media: watch(media, frozen))
    if args.user:
        protect(server, factory, args.user, args.password)
    sound = GstRtspServer.RTSPMediaFactory()
    sound.set_launch(f"( {TONE} )")
    server.get_mount_points().add_factory("/sound", sound)
    server.get_mount_points().add_factory("/live", factory)
    if not server.attach(None):
        sys.exit("port in use")
    loop = GLib.MainLoop()
    threading.Thread(target=obey, args=(loop, frozen), daemon=True).start()
    print("ready", flush=True)
    loop.run()


def watch(media, frozen) -> None:
    """Drop every buffer while frozen: the session stays, the images stop."""
    pad = media.get_element().get_by_name("gate").get_static_pad("src")
    answer = lambda *_: Gst.PadProbeReturn.DROP if frozen.is_set() else Gst.PadProbeReturn.OK  # noqa: E731
    pad.add_probe(Gst.PadProbeType.BUFFER, answer)


def protect(server, factory, user, password) -> None:
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "user")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    role = Gst.Structure.new_empty("user")
    role.set_value("media.factory.access", True)
    role.set_value("media.factory.construct", True)
    factory.add_role_from_structure(role)


def obey(loop, frozen) -> None:
    for line in sys.stdin:
        word = line.strip()
        if word == "freeze":
            frozen.set()
        elif word == "thaw":
            frozen.clear()
        elif word == "quit":
            break
    loop.quit()


if __name__ == "__main__":
    main()
