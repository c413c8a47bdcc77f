# Stands in for OE-Core's class of this name.
CARGO_HOME = "${UNPACKDIR}/cargo_home"
CARGO_VENDORING_DIRECTORY = "${CARGO_HOME}/bitbake"
CARGO_TARGET_SUBDIR = "${TARGET_ARCH}/release"
