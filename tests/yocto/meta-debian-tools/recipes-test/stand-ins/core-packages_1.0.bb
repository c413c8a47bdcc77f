SUMMARY = "Stands in for OE-Core's apt, dpkg and ptest-runner, and for its whole world, which yocto-check-layer compares with ours"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

inherit allarch

do_fetch[noexec] = "1"
do_unpack[noexec] = "1"
do_patch[noexec] = "1"
do_configure[noexec] = "1"
do_compile[noexec] = "1"
do_install[noexec] = "1"

PACKAGES = "apt dpkg ptest-runner"
ALLOW_EMPTY:apt = "1"
ALLOW_EMPTY:dpkg = "1"
ALLOW_EMPTY:ptest-runner = "1"
