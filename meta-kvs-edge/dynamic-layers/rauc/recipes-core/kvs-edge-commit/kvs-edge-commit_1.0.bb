SUMMARY = "Confirms a slot once the daemon is ready"
DESCRIPTION = "Marks the running slot good by RAUC; a slot whose daemon never gets ready is left by the bootloader."
SECTION = "base"
LICENSE = "Apache-2.0 | MIT"
# nooelint: oelint.var.licenseremotefile
LIC_FILES_CHKSUM = "file://${KVS_EDGE_REPOSITORY}/LICENSE-MIT;md5=d212caa370a341c08ac2d4cba3ab6850"

# The units of the repository, which developers and the Debian package use as well.
# nooelint: oelint.vars.fileextrapaths,oelint.vars.outofcontext
FILESEXTRAPATHS:prepend := "${KVS_EDGE_SYSTEMD}/image:"

SRC_URI = "file://kvs-edge-commit.service"

S = "${UNPACKDIR}"

inherit allarch features_check

REQUIRED_DISTRO_FEATURES = "systemd"

do_install() {
    units=${D}${systemd_system_unitdir}
    install -D -m 0644 ${UNPACKDIR}/kvs-edge-commit.service $units/kvs-edge-commit.service
    install -d $units/multi-user.target.wants $units/kvs-edge.service.wants
    ln -s ../kvs-edge-commit.service $units/multi-user.target.wants
    ln -s ../kvs-edge-commit.service $units/kvs-edge.service.wants
}

FILES:${PN} += "${systemd_system_unitdir}"

RDEPENDS:${PN} = "rauc"
