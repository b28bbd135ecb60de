"""A real RTSP server on loopback that takes streams (RECORD), run under the system's Python like rtsp_server.py.

    /usr/bin/python3 rtsp_record_server.py PORT FOLDER [--user U --password P [--digest]]

Decodes what is published to rtsp://127.0.0.1:PORT/live into FOLDER/SESSION-NUMBER.png and prints `ready`, then a line
`SESSION NUMBER WIDTHxHEIGHT PTS_MS` per frame into FOLDER/log. /watch only serves (PLAY) and takes nothing.
"""

import argparse
import itertools
import sys
from pathlib import Path

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

LAUNCH = (
    "( rtph264depay name=depay0 ! h264parse ! avdec_h264 ! videoconvert ! video/x-raw,format=RGB ! "
    "pngenc name=gate compression-level=1 ! multifilesink name=file sync=false async=false )"
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--user")
    parser.add_argument("--password")
    parser.add_argument("--digest", action="store_true")
    args = parser.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer(address="127.0.0.1", service=args.port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(LAUNCH)
    factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
    factory.set_latency(0)
    sessions = itertools.count()
    factory.connect("media-configure", lambda _, media: save(media, next(sessions), args.folder))
    player = GstRtspServer.RTSPMediaFactory()
    player.set_launch("( videotestsrc ! x264enc ! rtph264pay name=pay0 )")
    if args.user:
        protect(server, factory, args)
    server.get_mount_points().add_factory("/live", factory)
    server.get_mount_points().add_factory("/watch", player)
    if not server.attach(None):
        sys.exit("port in use")
    print("ready", flush=True)
    GLib.MainLoop().run()


def save(media, session, folder) -> None:
    """Name the session's files, and log every frame where it enters the PNG encoder."""
    media.get_element().get_by_name("file").set_property("location", f"{folder}/{session}-%04d.png")
    numbers = itertools.count()

    def log(pad, info):
        shape = pad.get_current_caps().get_structure(0)
        size = f"{shape.get_value('width')}x{shape.get_value('height')}"
        with (folder / "log").open("a") as file:
            file.write(f"{session} {next(numbers)} {size} {info.get_buffer().pts / 1e6:.1f}\n")
        return Gst.PadProbeReturn.OK

    media.get_element().get_by_name("gate").get_static_pad("sink").add_probe(Gst.PadProbeType.BUFFER, log)


def protect(server, factory, args) -> None:
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "user")
    if args.digest:
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(args.user, args.password, token)
    else:
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(args.user, args.password), token)
    server.set_auth(auth)
    role = Gst.Structure.new_empty("user")
    role.set_value("media.factory.access", True)
    role.set_value("media.factory.construct", True)
    factory.add_role_from_structure(role)


if __name__ == "__main__":
    main()
