SUMMARY = "Stands in for what the Mender client requires and recommends: packages with nothing in them"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

inherit allarch

PROVIDES = "boost dbus googletest libarchive lmdb"

do_fetch[noexec] = "1"
do_unpack[noexec] = "1"
do_patch[noexec] = "1"
do_configure[noexec] = "1"
do_compile[noexec] = "1"
do_install[noexec] = "1"

PACKAGES = "boost-filesystem ca-certificates dbus jq libarchive lmdb mender-flash"
ALLOW_EMPTY:boost-filesystem = "1"
ALLOW_EMPTY:ca-certificates = "1"
ALLOW_EMPTY:dbus = "1"
ALLOW_EMPTY:jq = "1"
ALLOW_EMPTY:libarchive = "1"
ALLOW_EMPTY:lmdb = "1"
ALLOW_EMPTY:mender-flash = "1"
