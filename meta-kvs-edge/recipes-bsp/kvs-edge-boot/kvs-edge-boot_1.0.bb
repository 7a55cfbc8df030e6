SUMMARY = "Bootloader of the virtual board"
DESCRIPTION = "GRUB's choice between two slots, its first state, and where the running system finds that state."
SECTION = "base"
LICENSE = "Apache-2.0 | MIT"
# nooelint: oelint.var.licenseremotefile
LIC_FILES_CHKSUM = "file://${KVS_EDGE_REPOSITORY}/LICENSE-MIT;md5=d212caa370a341c08ac2d4cba3ab6850"

# The units of the repository, which developers and the Debian package use as well.
# nooelint: oelint.vars.fileextrapaths,oelint.vars.outofcontext
FILESEXTRAPATHS:prepend := "${KVS_EDGE_SYSTEMD}/image:"

SRC_URI = "\
    file://boot-efi.mount \
    file://grub.cfg \
    file://grubenv \
"

S = "${UNPACKDIR}"

COMPATIBLE_MACHINE = "^kvs-edge-qemuarm64$"
PACKAGE_ARCH = "${MACHINE_ARCH}"

inherit deploy features_check

REQUIRED_DISTRO_FEATURES = "systemd"

do_install() {
    units=${D}${systemd_system_unitdir}
    install -D -m 0644 ${UNPACKDIR}/boot-efi.mount $units/boot-efi.mount
    install -d $units/local-fs.target.wants ${D}/boot/efi
    ln -s ../boot-efi.mount $units/local-fs.target.wants
}

do_deploy() {
    install -m 0644 ${UNPACKDIR}/grub.cfg ${UNPACKDIR}/grubenv ${DEPLOYDIR}
}

addtask deploy after do_install before do_build

FILES:${PN} += "/boot/efi ${systemd_system_unitdir}"

RDEPENDS:${PN} = "grub-editenv"
