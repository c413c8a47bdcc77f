SUMMARY = "Stands in for glibc: Debian's C library, which Debian's compiler links to"
LICENSE = "LGPL-2.1-or-later"
LIC_FILES_CHKSUM = "file:///usr/share/common-licenses/LGPL-2.1;md5=4fbd65380cdd255951079008b364516c"

PROVIDES = "virtual/libc"
INHIBIT_DEFAULT_DEPS = "1"

do_fetch[noexec] = "1"
do_unpack[noexec] = "1"
do_patch[noexec] = "1"
do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -d ${D}${base_libdir}
    cp -L /usr/${DEBIAN_TRIPLE}/lib/libc.so.6 /usr/${DEBIAN_TRIPLE}/lib/libgcc_s.so.1 \
        /usr/${DEBIAN_TRIPLE}/lib/ld-linux-*.so.* ${D}${base_libdir}
}

# Debian's names: the package that is built is installed on a Debian too.
PACKAGES = "libc6 libgcc-s1"
# What rpm asks for beside the libraries.
RPROVIDES:libc6 = "rtld(GNU_HASH)"
FILES:libc6 = "${base_libdir}/libc.so.6 ${base_libdir}/ld-linux-*"
FILES:libgcc-s1 = "${base_libdir}/libgcc_s.so.1"

# It is Debian's, and nothing of it is under test.
INHIBIT_PACKAGE_STRIP = "1"
INHIBIT_SYSROOT_STRIP = "1"
INSANE_SKIP = "already-stripped file-rdeps ldflags libdir"
