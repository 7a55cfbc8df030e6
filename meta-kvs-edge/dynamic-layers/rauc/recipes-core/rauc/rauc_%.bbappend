# A slot is confirmed by kvs-edge-commit once the daemon is ready, and not by whoever gets as far as booting.
RRECOMMENDS:${PN}:remove:kvs-edge-os = "${PN}-mark-good"
