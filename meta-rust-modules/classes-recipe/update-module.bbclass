# An Update Module in Rust, built by cargo. A recipe of one:
#
#     SUMMARY = "Update Module that …"
#     LICENSE = "MIT"
#     LIC_FILES_CHKSUM = "file://LICENSE;md5=…"
#     SRC_URI = "git://…;protocol=https;branch=main;tag=v${PV}"
#     inherit update-module
#
# `bitbake -c update_crates RECIPE` writes the list of crates beside it, which is taken up from there.

inherit cargo cargo-update-recipe-crates update-module-package

# The recipe has to inherit this class itself: in a file that it requires, BPN is that file's.
# nooelint: oelint.file.includenotfound,oelint.file.requireinclude - each recipe has its own, and none before update_crates
include ${FILE_DIRNAME}/${BPN}-crates.inc

# The oldest Rust that builds it. A release with an older one has no such recipe; what is prebuilt can take its place.
UPDATE_MODULE_RUST ?= "1.85"

# nooelint: oelint.task.noanonpython - there is no other way to leave a recipe out
python() {
    need, have = d.getVar('UPDATE_MODULE_RUST'), (d.getVar('PREFERRED_VERSION_rust-native') or '').rstrip('%')
    if have and bb.utils.vercmp_string_op(have, need, '<'):
        raise bb.parse.SkipRecipe(f'it needs Rust {need} and this release has {have}; a -bin recipe needs none')
}

# A profile may strip; BitBake does that itself, and keeps the symbols in a package for debugging.
export CARGO_PROFILE_RELEASE_STRIP = "none"

do_install() {
    update_module_install "${B}/target/${CARGO_TARGET_SUBDIR}/${UPDATE_MODULE}"
}
