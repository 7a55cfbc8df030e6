"""GStreamer's RTSP server as a camera: /h264 and /h265 (with AAC).

Usage: gst_rtsp_server.py PORT FOLDER [NAME=PIPELINE ...]. Port 0 lets the kernel choose; prints "listens on PORT". What the
encoders give out is written to FOLDER/h264 and FOLDER/h265 as Annex B while it is sent. Further names are further paths.
Ends with 77 where GStreamer's parts are missing, and names them. Why a request was refused stands on standard error.
"""

import os
import sys

PACKAGES = "python3-gst-1.0 gir1.2-gst-rtsp-server-1.0 gstreamer1.0-x gstreamer1.0-plugins-{base,good,bad,ugly}"
# Errors and warnings of elements and server, but one for each packet: an answer with 503 says nothing.
os.environ.setdefault("GST_DEBUG", "2,rtpsession:1")
os.environ.setdefault("GST_DEBUG_NO_COLOR", "1")


def missing(what):
    print(f"missing: {what}; install the Debian packages {PACKAGES}", flush=True)
    sys.exit(77)


try:
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer
except (ImportError, ValueError) as error:
    missing(error)

Gst.init(None)
port, folder, *further = sys.argv[1:]
SOURCE = (
    "videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width=320,height=180,framerate=10/1"
    " ! timeoverlay"
)
H264 = (
    f"( {SOURCE} ! x264enc tune=zerolatency speed-preset=ultrafast bitrate=300 key-int-max=10 ! h264parse"
    " ! video/x-h264,stream-format=byte-stream,alignment=au ! identity name=encoded ! rtph264pay name=pay0 pt=96 )"
)
H265 = (
    f"( {SOURCE} ! x265enc tune=zerolatency speed-preset=ultrafast bitrate=300 key-int-max=10 ! h265parse"
    " ! video/x-h265,stream-format=byte-stream,alignment=au ! identity name=encoded ! rtph265pay name=pay0 pt=96"
    " audiotestsrc is-live=true wave=ticks ! audio/x-raw,rate=16000,channels=1 ! voaacenc ! rtpmp4gpay name=pay1 pt=97 )"
)
PATHS = {"h264": H264, "h265": H265, **dict(argument.split("=", 1) for argument in further)}

for launch in PATHS.values():
    # GStreamer itself says which elements of the pipelines it does not have.
    context = Gst.ParseContext()
    try:
        Gst.parse_launch_full(launch, context, Gst.ParseFlags.NONE)
    except GLib.Error as error:
        if not context.get_missing_elements():
            sys.exit(f"{launch}: {error.message}")
    if context.get_missing_elements():
        missing(f"no element {', '.join(context.get_missing_elements())}")


def record(_factory, media, name):
    """A second sink for the file would trouble the server's preroll, so the buffers are copied in passing."""
    encoded = media.get_element().get_by_name("encoded")
    if encoded is None:
        return
    output = open(f"{folder}/{name}", "ab", buffering=0)
    written = None

    def copy(_pad, info):
        nonlocal written
        buffer = info.get_buffer()
        # The server holds the first one back for a while; then it passes once more.
        if buffer.pts != written:
            output.write(buffer.extract_dup(0, buffer.get_size()))
        written = buffer.pts
        return Gst.PadProbeReturn.OK

    encoded.get_static_pad("src").add_probe(Gst.PadProbeType.BUFFER, copy)


server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(port)
for name, launch in PATHS.items():
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(launch)
    factory.connect("media-configure", record, name)
    server.get_mount_points().add_factory(f"/{name}", factory)
if server.attach(None) == 0:
    sys.exit(f"cannot listen on port {port}")
print(f"listens on {server.get_bound_port()}", flush=True)
GLib.MainLoop().run()
