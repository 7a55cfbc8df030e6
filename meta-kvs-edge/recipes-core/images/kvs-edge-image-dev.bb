SUMMARY = "The camera box for developers"
DESCRIPTION = "The same, with a way to log in and tools to look around: never for customers."

require kvs-edge-image.inc

# nooelint: oelint.var.badimagefeature.debug-tweaks,oelint.var.badimagefeature.tools-debug
IMAGE_FEATURES += "debug-tweaks ssh-server-dropbear tools-debug"
IMAGE_INSTALL += "gstreamer1.0-plugins-base-meta strace tcpdump"
