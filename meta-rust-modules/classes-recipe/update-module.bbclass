# An Update Module in Rust, built by cargo. README.md shows a recipe. `bitbake -c update_crates RECIPE` writes the list of
# crates beside the recipe, and this class includes it.

inherit cargo cargo-update-recipe-crates update-module-package

# The recipe has to inherit this class itself: in a file that it requires, BPN is that file's.
UPDATE_MODULE_CRATES ?= "${FILE_DIRNAME}/${BPN}-crates.inc"
# nooelint: oelint.file.includenotfound,oelint.file.requireinclude - each recipe has its own, and none before update_crates
include ${UPDATE_MODULE_CRATES}

# The oldest Rust that builds it. A release with an older one has no such recipe; the prebuilt one can take its place.
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
