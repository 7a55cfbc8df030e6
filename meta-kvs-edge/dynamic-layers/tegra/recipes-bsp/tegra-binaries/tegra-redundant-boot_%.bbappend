# kvs-edge-slots masks it; a masked unit cannot be enabled.
SYSTEMD_AUTO_ENABLE:${PN}:kvs-edge-orin-nano = "disable"
