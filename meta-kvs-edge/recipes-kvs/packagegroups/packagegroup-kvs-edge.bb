SUMMARY = "All that a camera box runs"
DESCRIPTION = "The daemon, how systemd is set for it, what switches slots, and the parts of GStreamer that it looks for at run time."
SECTION = "multimedia"

# What a board needs differs.
PACKAGE_ARCH = "${MACHINE_ARCH}"

inherit packagegroup features_check

REQUIRED_DISTRO_FEATURES = "systemd"

RDEPENDS:${PN} = "\
    ca-certificates \
    gstreamer1.0-plugins-bad-videoparsersbad \
    kvs-edge \
    kvs-edge-system \
    tzdata \
"
# Where the layer of RAUC is there.
# nooelint: oelint.vars.dependsordered
RDEPENDS:${PN} += "${@bb.utils.contains('BBFILE_COLLECTIONS', 'rauc', 'kvs-edge-commit kvs-edge-rauc-conf rauc rauc-service', '', d)}"
# NVIDIA's decoder, its detector backend, its boot firmware, and how slots are switched.
RDEPENDS:${PN}:append:kvs-edge-orin-nano = " \
    cuda-cudart \
    gstreamer1.0-plugins-nvvidconv \
    gstreamer1.0-plugins-nvvideo4linux2 \
    kvs-edge-slots \
    tegra-uefi-capsules \
    tensorrt-core \
    tensorrt-plugins \
"
