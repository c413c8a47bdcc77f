# Replaces OE-Core's class of this name in level 1 of the tests.
CARGO_HOME = "${UNPACKDIR}/cargo_home"
CARGO_VENDORING_DIRECTORY = "${CARGO_HOME}/bitbake"
CARGO_TARGET_SUBDIR = "${TARGET_ARCH}/release"
