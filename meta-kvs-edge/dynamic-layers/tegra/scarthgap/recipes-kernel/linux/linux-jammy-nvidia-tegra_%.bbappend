FILESEXTRAPATHS:prepend:kvs-edge-orin-nano := "${THISDIR}/../../../recipes-kernel/linux/files:"

SRC_URI:append:kvs-edge-orin-nano = " file://kvs-edge.cfg"
