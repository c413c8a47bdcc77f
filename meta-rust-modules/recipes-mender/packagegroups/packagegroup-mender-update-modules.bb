SUMMARY = "Every Mender Update Module of this layer"
DESCRIPTION = "The modules that this build has a use for: deb where images are made of .deb packages, container with meta-virtualization."
HOMEPAGE = "https://github.com/mender-rust-modules/mender-rust-modules"
BUGTRACKER = "https://github.com/mender-rust-modules/mender-rust-modules/issues"
SECTION = "admin"

PACKAGE_ARCH = "${TUNE_PKGARCH}"

inherit packagegroup

# The engine that container requires is a recipe of meta-virtualization that needs the distro feature of that name.
RUST_MODULES_HAVE_CONTAINER = "${@bb.utils.contains('DISTRO_FEATURES', 'virtualization', \
    bb.utils.contains('BBFILE_COLLECTIONS', 'virtualization-layer', '1', '', d), '', d)}"

RDEPENDS:${PN} = "\
    ${@'mender-update-module-container' if d.getVar('RUST_MODULES_HAVE_CONTAINER') else ''} \
    ${@bb.utils.contains('PACKAGE_CLASSES', 'package_deb', 'mender-update-module-deb', '', d)} \
    mender-update-module-directory \
    mender-update-module-web-file \
"
