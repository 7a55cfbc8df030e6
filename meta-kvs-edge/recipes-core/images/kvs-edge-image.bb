SUMMARY = "The camera box"
DESCRIPTION = "A read-only root file system with the daemon and what it needs, nothing else."

require kvs-edge-image.inc
