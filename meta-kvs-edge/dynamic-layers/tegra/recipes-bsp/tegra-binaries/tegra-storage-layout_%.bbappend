FILESEXTRAPATHS:prepend:kvs-edge-orin-nano := "${THISDIR}/files:"

SRC_URI:append:kvs-edge-orin-nano = " file://data-partition.py"

# The rest of the disk is for what outlives an update.
do_compile:append:kvs-edge-orin-nano() {
    python3 ${UNPACKDIR}/data-partition.py external-flash.xml
}
