SUMMARY = "Every Mender Update Module of this layer"
DESCRIPTION = "The modules that this build has a use for: deb where images are made of .deb packages, container with meta-virtualization."
HOMEPAGE = "https://github.com/mender-rust-modules/mender-rust-modules"
BUGTRACKER = "https://github.com/mender-rust-modules/mender-rust-modules/issues"
SECTION = "admin"

PACKAGE_ARCH = "${TUNE_PKGARCH}"

inherit packagegroup

RDEPENDS:${PN} = "\
    ${@bb.utils.contains('BBFILE_COLLECTIONS', 'virtualization-layer', 'mender-update-module-container', '', d)} \
    ${@bb.utils.contains('PACKAGE_CLASSES', 'package_deb', 'mender-update-module-deb', '', d)} \
    mender-update-module-directory \
    mender-update-module-web-file \
"
