FILESEXTRAPATHS:prepend:kvs-edge-qemuarm64 := "${THISDIR}/files:"

SRC_URI:append:kvs-edge-qemuarm64 = " file://kvs-edge.cfg"
