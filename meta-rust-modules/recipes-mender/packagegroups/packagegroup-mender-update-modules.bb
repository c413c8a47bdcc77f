SUMMARY = "Every Mender Update Module of this layer"
DESCRIPTION = "The modules that this build has a use for: deb where images are made of .deb packages, container with meta-virtualization."
HOMEPAGE = "https://github.com/mender-rust-modules/mender-rust-modules"
BUGTRACKER = "https://github.com/mender-rust-modules/mender-rust-modules/issues"
SECTION = "admin"

PACKAGE_ARCH = "${TUNE_PKGARCH}"

inherit packagegroup

# container needs systemd, and podman, a recipe of meta-virtualization, the other features. A build with docker alone,
# without ipv6 or seccomp, sets this to "1".
RUST_MODULES_HAVE_CONTAINER ?= "${@bb.utils.contains('DISTRO_FEATURES', 'virtualization systemd ipv6 seccomp', \
    bb.utils.contains('BBFILE_COLLECTIONS', 'virtualization-layer', '1', '', d), '', d)}"

RDEPENDS:${PN} = "\
    ${@'mender-update-module-container' if d.getVar('RUST_MODULES_HAVE_CONTAINER') else ''} \
    ${@bb.utils.contains('PACKAGE_CLASSES', 'package_deb', 'mender-update-module-deb', '', d)} \
    mender-update-module-directory \
    mender-update-module-web-file \
"
