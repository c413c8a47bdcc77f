SUMMARY = "Stands in for the shells that packages ask for by their paths"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

inherit allarch

do_fetch[noexec] = "1"
do_unpack[noexec] = "1"
do_patch[noexec] = "1"
do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -d ${D}${base_bindir}
    echo "stands in for bash" > ${D}${base_bindir}/bash
    echo "stands in for a shell" > ${D}${base_bindir}/sh
}

PACKAGES = "bash busybox"
FILES:bash = "${base_bindir}/bash"
FILES:busybox = "${base_bindir}/sh"
RPROVIDES:bash = "/bin/bash"
RPROVIDES:busybox = "/bin/sh"
