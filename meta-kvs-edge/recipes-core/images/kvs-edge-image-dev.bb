SUMMARY = "The camera box for developers"
DESCRIPTION = "The same, with a way to log in and tools to look around: never for customers."

require kvs-edge-image.inc

# Not `debug-tweaks`, which wrynose has taken apart.
# nooelint: oelint.var.badimagefeature.allow-empty-password,oelint.var.badimagefeature.allow-root-login,oelint.var.badimagefeature.empty-root-password,oelint.var.badimagefeature.post-install-logging,oelint.var.badimagefeature.tools-debug
IMAGE_FEATURES += "\
    allow-empty-password \
    allow-root-login \
    empty-root-password \
    post-install-logging \
    ssh-server-dropbear \
    tools-debug \
"
IMAGE_INSTALL += "gstreamer1.0-plugins-base-meta strace"
