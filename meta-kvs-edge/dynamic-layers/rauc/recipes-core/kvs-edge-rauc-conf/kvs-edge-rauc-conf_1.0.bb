SUMMARY = "RAUC's slots on a camera box, and whose bundles it believes"
DESCRIPTION = "The board's system.conf with the keyring: that of the development PKI of this build, or the one that KVS_EDGE_KEYRING names."
SECTION = "base"
LICENSE = "Apache-2.0 | MIT"
# nooelint: oelint.var.licenseremotefile
LIC_FILES_CHKSUM = "file://${KVS_EDGE_REPOSITORY}/LICENSE-MIT;md5=d212caa370a341c08ac2d4cba3ab6850"

SRC_URI = "file://system.conf"

S = "${UNPACKDIR}"

PACKAGE_ARCH = "${MACHINE_ARCH}"
COMPATIBLE_MACHINE = "^(kvs-edge-orin-nano|kvs-edge-qemuarm64)$"

inherit kvs_edge_pki

do_install() {
    install -D -m 0644 ${UNPACKDIR}/system.conf ${D}${nonarch_libdir}/rauc/system.conf
    install -m 0644 ${KVS_EDGE_KEYRING} ${D}${nonarch_libdir}/rauc/ca.cert.pem
}
do_install[prefuncs] += "kvs_edge_pki"
do_install[file-checksums] += "${KVS_EDGE_KEYRING}:False"

FILES:${PN} += "${nonarch_libdir}/rauc"

RPROVIDES:${PN} += "virtual-rauc-conf"
RCONFLICTS:${PN} = "rauc-conf"
