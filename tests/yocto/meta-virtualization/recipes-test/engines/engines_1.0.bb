SUMMARY = "Stands in for the container engines: packages with nothing in them"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

inherit allarch

do_fetch[noexec] = "1"
do_unpack[noexec] = "1"
do_patch[noexec] = "1"
do_configure[noexec] = "1"
do_compile[noexec] = "1"
do_install[noexec] = "1"

PACKAGES = "podman docker-moby docker-compose"
ALLOW_EMPTY:podman = "1"
ALLOW_EMPTY:docker-moby = "1"
ALLOW_EMPTY:docker-compose = "1"
