require kvs-edge.inc

# Every crate with the SHA-256 of the lock file: do_compile needs no network. Written by `cargo xtask yocto crates`.
require kvs-edge-crates.inc

DEPENDS += "glib-2.0 gstreamer1.0 gstreamer1.0-plugins-base"

PV = "0.1.0+git"

# The layer lies in the repository of its sources: the commit that is checked out is built. A release names it by SRCREV.
# wrynose would unpack it elsewhere.
SRC_URI += "git://${KVS_EDGE_REPOSITORY};protocol=file;usehead=1;nobranch=1;name=kvs-edge;destsuffix=git"
# nooelint: oelint.vars.autorev
SRCREV ?= "${AUTOREV}"
SRCREV_FORMAT = "kvs-edge"

S = "${UNPACKDIR}/git"

inherit cargo_bin features_check systemd useradd

REQUIRED_DISTRO_FEATURES = "systemd"

CARGO_BUILD_PROFILE = "image"
CARGO_FEATURES = "bench relr"
EXTRA_CARGO_FLAGS = "--frozen --package kvs-edge --bin kvs-edge --no-default-features"
# Paths of the build machine stand in no message.
EXTRA_RUSTFLAGS = "--remap-path-prefix=${WORKDIR}=/usr/src/kvs-edge"

SYSTEMD_SERVICE:${PN} = "kvs-edge.service"

USERADD_PACKAGES = "${PN}"
GROUPADD_PARAM:${PN} = "--system kvs-edge; --system render"
USERADD_PARAM:${PN} = "\
    --system --gid kvs-edge --groups video,render \
    --home-dir ${localstatedir}/lib/kvs-edge --no-create-home --shell ${base_sbindir}/nologin kvs-edge \
"

# cargo looks for crates where the fetcher has unpacked them, and nowhere else.
do_configure:append() {
    printf '[source.crates-io]
replace-with = "bitbake"
[source.bitbake]
directory = "%s"
' \
        "${CARGO_HOME}/bitbake" > ${CARGO_HOME}/config.toml
}

# The class would install every program of the workspace.
do_install() {
    install -D -m 0755 ${CARGO_BINDIR}/kvs-edge ${D}${bindir}/kvs-edge
    install -D -m 0644 ${S}/systemd/kvs-edge.service ${D}${systemd_system_unitdir}/kvs-edge.service
    install -D -m 0644 ${S}/systemd/kvs-edge.tmpfiles ${D}${nonarch_libdir}/tmpfiles.d/kvs-edge.conf
    install -D -m 0644 ${S}/app/config/kvs-edge.example.toml ${D}${datadir}/kvs-edge/kvs-edge.example.toml
    install -d -m 0750 -g kvs-edge ${D}${sysconfdir}/kvs-edge
}

FILES:${PN} += "${nonarch_libdir}/tmpfiles.d"

RDEPENDS:${PN} = "ca-certificates gstreamer1.0 gstreamer1.0-plugins-base"
RRECOMMENDS:${PN} = "gstreamer1.0-plugins-bad-videoparsersbad"
