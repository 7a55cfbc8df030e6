SUMMARY = "How systemd of a camera box is set"
DESCRIPTION = "The hardware watchdog is on, the journal is bounded and written seldom, and what must outlive an update lies on the data \
               partition."
SECTION = "base"
LICENSE = "Apache-2.0 | MIT"
# They lie in the repository of this layer, which has no archive to take a licence from.
# nooelint: oelint.var.licenseremotefile
LIC_FILES_CHKSUM = "file://${KVS_EDGE_REPOSITORY}/LICENSE-MIT;md5=d212caa370a341c08ac2d4cba3ab6850"

# The units of the repository, which developers and the Debian package use as well.
# nooelint: oelint.vars.fileextrapaths,oelint.vars.outofcontext
FILESEXTRAPATHS:prepend := "${KVS_EDGE_SYSTEMD}/image:"

SRC_URI = "\
    file://data.mount \
    file://journald.conf \
    file://kvs-edge-data \
    file://kvs-edge-data-format.service \
    file://kvs-edge-data.service \
    file://kvs-edge.conf \
    file://watchdog.conf \
"

S = "${UNPACKDIR}"

inherit allarch features_check

REQUIRED_DISTRO_FEATURES = "systemd"

# Units are started by links below /usr: a preset cannot write on a read-only root.
do_install() {
    units=${D}${systemd_system_unitdir}
    cd ${UNPACKDIR}
    install -D -m 0644 journald.conf ${D}${nonarch_libdir}/systemd/journald.conf.d/50-kvs-edge.conf
    install -D -m 0644 watchdog.conf ${D}${nonarch_libdir}/systemd/system.conf.d/50-kvs-edge.conf
    install -D -m 0644 kvs-edge.conf $units/kvs-edge.service.d/50-image.conf
    install -m 0644 data.mount kvs-edge-data.service kvs-edge-data-format.service $units
    install -D -m 0755 kvs-edge-data ${D}${libexecdir}/kvs-edge-data
    install -d $units/local-fs.target.wants
    ln -s ../data.mount ../kvs-edge-data.service $units/local-fs.target.wants
    # Where the partition is seen.
    install -d ${D}/data ${D}${sysconfdir}/credstore
}

FILES:${PN} += "/data ${nonarch_libdir}/systemd ${systemd_system_unitdir}"

RDEPENDS:${PN} = "e2fsprogs-mke2fs"
