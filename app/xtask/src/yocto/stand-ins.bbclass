# For `cargo xtask yocto package`: this machine's tools and Debian's libraries for arm64 stand in for what BitBake would build first.
# Recipes, fetching, unpacking, compiling, installing and packaging are the real ones. @...@ are filled in by xtask.

# Whatever is not ours is there.
ASSUME_PROVIDED += "^(?!kvs-edge).*"
HOSTTOOLS += "cargo dpkg-deb openssl pkg-config"

# Debian's pseudo and rpm.
FAKEROOTCMD = "/usr/bin/pseudo"
FAKEROOTBASEENV = "PSEUDO_BINDIR=/usr/bin PSEUDO_LIBDIR=@PSEUDO@ PSEUDO_PREFIX=/usr PSEUDO_IGNORE_PATHS=${@oe.path.canonicalize(d.getVar('PSEUDO_IGNORE_PATHS'))} PSEUDO_DISABLED=1 PYTHONDONTWRITEBYTECODE=1"
FAKEROOTENV = "PSEUDO_BINDIR=/usr/bin PSEUDO_LIBDIR=@PSEUDO@ PSEUDO_PREFIX=/usr PSEUDO_LOCALSTATEDIR=${PSEUDO_LOCALSTATEDIR} PSEUDO_PASSWD=${PSEUDO_PASSWD} PSEUDO_NOSYMLINKEXP=1 PSEUDO_IGNORE_PATHS=${@oe.path.canonicalize(d.getVar('PSEUDO_IGNORE_PATHS'))} PSEUDO_DISABLED=0"
RPMDEPS:forcevariable = "/usr/lib/rpm/rpmdeps --alldeps"

# A cross compiler with a sysroot of its own. Symbols are kept: stripping asks for BitBake's binutils.
INHIBIT_PACKAGE_STRIP = "1"
INHIBIT_PACKAGE_DEBUG_SPLIT = "1"
INHIBIT_SYSROOT_STRIP = "1"
DEBUG_PREFIX_MAP = ""
CC:pn-kvs-edge = "@CROSS@/bin/cc"
AR:pn-kvs-edge = "@CROSS@/bin/ar"
LDFLAGS:pn-kvs-edge = ""
RUSTC[export] = "1"
RUSTC:pn-kvs-edge = "@CROSS@/bin/rustc"
export PKG_CONFIG_SYSROOT_DIR_aarch64_unknown_linux_gnu = "@CROSS@/sysroot"
export PKG_CONFIG_LIBDIR_aarch64_unknown_linux_gnu = "@CROSS@/sysroot/usr/lib/aarch64-linux-gnu/pkgconfig"

# The compiler's speed is not what is looked at.
CARGO_BUILD_PROFILE:pn-kvs-edge = "quick"
do_configure[postfuncs] += "${QUICK}"
QUICK = ""
QUICK:pn-kvs-edge = "quick_profile"
quick_profile() {
    printf '[profile.quick]\ninherits = "release"\nopt-level = 0\ncodegen-units = 16\nstrip = true\n' >> ${CARGO_HOME}/config.toml
}

# Users of the recipe, which useradd would write, beside those that files of a system belong to.
SYSROOTFUNC:forcevariable = "stand_in_users"
stand_in_users() {
    mkdir -p ${RECIPE_SYSROOT}${sysconfdir}
    grep -v '^kvs-edge:' /etc/passwd > ${RECIPE_SYSROOT}${sysconfdir}/passwd
    grep -v '^kvs-edge:' /etc/group > ${RECIPE_SYSROOT}${sysconfdir}/group
    echo 'kvs-edge:x:990:990::/var/lib/kvs-edge:/sbin/nologin' >> ${RECIPE_SYSROOT}${sysconfdir}/passwd
    echo 'kvs-edge:x:990:' >> ${RECIPE_SYSROOT}${sysconfdir}/group
}

# No task's result is taken from elsewhere.
python () {
    for task in d.getVar('__BBTASKS', False) or []:
        if task.endswith('_setscene'):
            d.delVarFlag(task, 'depends')
}
