SUMMARY = "Every Mender Update Module of this layer"
DESCRIPTION = "The modules whose programs this build has layers for: container needs meta-virtualization."
HOMEPAGE = "https://github.com/mender-rust-modules/mender-rust-modules"
BUGTRACKER = "https://github.com/mender-rust-modules/mender-rust-modules/issues"
SECTION = "admin"

PACKAGE_ARCH = "${TUNE_PKGARCH}"

inherit packagegroup

RDEPENDS:${PN} = "\
    ${@bb.utils.contains('BBFILE_COLLECTIONS', 'virtualization-layer', 'mender-update-module-container', '', d)} \
    mender-update-module-deb \
    mender-update-module-directory \
    mender-update-module-web-file \
"
