SUMMARY = "How systemd of a camera box is set"
DESCRIPTION = "The hardware watchdog is on, and the journal is bounded and written seldom."
SECTION = "base"
LICENSE = "Apache-2.0 | MIT"
# They lie in the repository of this layer, which has no archive to take a licence from.
# nooelint: oelint.var.licenseremotefile
LIC_FILES_CHKSUM = "file://${KVS_EDGE_REPOSITORY}/LICENSE-MIT;md5=d212caa370a341c08ac2d4cba3ab6850"

SRC_URI = "\
    file://${KVS_EDGE_SYSTEMD}/image/journald.conf;subdir=image \
    file://${KVS_EDGE_SYSTEMD}/image/watchdog.conf;subdir=image \
"

S = "${UNPACKDIR}"

inherit allarch

do_install() {
    install -d ${D}${nonarch_libdir}/systemd/journald.conf.d ${D}${nonarch_libdir}/systemd/system.conf.d
    cd ${UNPACKDIR}/image
    install -m 0644 $(find . -name journald.conf) ${D}${nonarch_libdir}/systemd/journald.conf.d/50-kvs-edge.conf
    install -m 0644 $(find . -name watchdog.conf) ${D}${nonarch_libdir}/systemd/system.conf.d/50-kvs-edge.conf
}

FILES:${PN} += "${nonarch_libdir}/systemd"
