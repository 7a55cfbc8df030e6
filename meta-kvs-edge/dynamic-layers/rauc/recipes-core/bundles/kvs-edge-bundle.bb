SUMMARY = "An update of the camera box"
DESCRIPTION = "The root file system as a signed RAUC bundle: streamed over HTTP, where only changed blocks are fetched."
SECTION = "images"
LICENSE = "Apache-2.0 | MIT"

# All that it holds comes from the image.
SRC_URI = ""

inherit bundle features_check kvs_edge_pki

REQUIRED_DISTRO_FEATURES = "systemd"

COMPATIBLE_MACHINE = "^(kvs-edge-orin-nano|kvs-edge-qemuarm64)$"

RAUC_BUNDLE_COMPATIBLE = "${KVS_EDGE_COMPATIBLE}"
RAUC_BUNDLE_VERSION = "${DISTRO_VERSION}"
RAUC_BUNDLE_FORMAT = "verity"
RAUC_BUNDLE_SLOTS = "rootfs"
RAUC_SLOT_rootfs = "kvs-edge-image"
RAUC_SLOT_rootfs[fstype] = "ext4"
RAUC_SLOT_rootfs[adaptive] = "block-hash-index"

# nooelint: oelint.vars.mispell.unknown
do_bundle[prefuncs] += "kvs_edge_pki"
