SUMMARY = "RAUC's bootloader backend on a Jetson"
DESCRIPTION = "Switches, confirms and rules out slots by nvbootctrl and the firmware's EFI variables. NVIDIA's verifier, which confirms \
               whatever boots, is masked."
SECTION = "base"
LICENSE = "Apache-2.0 | MIT"
# nooelint: oelint.var.licenseremotefile
LIC_FILES_CHKSUM = "file://${KVS_EDGE_REPOSITORY}/LICENSE-MIT;md5=d212caa370a341c08ac2d4cba3ab6850"

SRC_URI = "file://kvs-edge-slots"

S = "${UNPACKDIR}"

COMPATIBLE_MACHINE = "(tegra)"
PACKAGE_ARCH = "${MACHINE_ARCH}"

do_install() {
    install -D -m 0755 ${UNPACKDIR}/kvs-edge-slots ${D}${libexecdir}/kvs-edge-slots
    install -d ${D}${sysconfdir}/systemd/system
    ln -s /dev/null ${D}${sysconfdir}/systemd/system/nv_update_verifier.service
}

RDEPENDS:${PN} = "e2fsprogs tegra-redundant-boot-base"
