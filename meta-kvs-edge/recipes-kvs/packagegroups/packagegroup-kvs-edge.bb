SUMMARY = "All that a camera box runs"
DESCRIPTION = "The daemon, how systemd is set for it, and the parts of GStreamer that it looks for at run time."
SECTION = "multimedia"

inherit packagegroup

RDEPENDS:${PN} = "\
    ca-certificates \
    gstreamer1.0-plugins-bad-videoparsersbad \
    kvs-edge \
    kvs-edge-system \
    tzdata \
"
