SUMMARY = "Stands in for pseudo-native: Debian's pseudo is on the host"
LICENSE = "LGPL-2.1-or-later"
LIC_FILES_CHKSUM = "file:///usr/share/common-licenses/LGPL-2.1;md5=4fbd65380cdd255951079008b364516c"

inherit native

PROVIDES = "virtual/fakeroot-native"
INHIBIT_DEFAULT_DEPS = "1"

do_fetch[noexec] = "1"
do_unpack[noexec] = "1"
do_patch[noexec] = "1"
do_configure[noexec] = "1"
do_compile[noexec] = "1"
do_install[noexec] = "1"
