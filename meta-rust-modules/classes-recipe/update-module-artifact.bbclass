# A Mender Artifact for an Update Module, deployed beside the images. README.md has the variables.

inherit deploy nopackages

# mender-artifact is a recipe of meta-mender-core.
DEPENDS += "mender-artifact-native"

# The payload's files lie side by side, in no folder of their own. scarthgap has no UNPACKDIR.
S = "${@d.getVar('UNPACKDIR') or d.getVar('WORKDIR')}"

ARTIFACT_NAME ?= "${PN}-${PV}"
ARTIFACT_DEVICE_TYPES ?= "${@d.getVar('MENDER_DEVICE_TYPES_COMPATIBLE') or d.getVar('MACHINE')}"
ARTIFACT_SOFTWARE_FILESYSTEM ?= "data-partition"
UPDATE_MODULE ?= ""
ARTIFACT_FILES ?= ""
ARTIFACT_META_DATA ?= ""

# What it is for depends on the machine.
PACKAGE_ARCH = "${MACHINE_ARCH}"

do_configure[noexec] = "1"
do_compile[noexec] = "1"
do_install[noexec] = "1"

do_deploy() {
    if [ -z "${UPDATE_MODULE}" ] || [ -z "${ARTIFACT_FILES}" ]; then
        bbfatal "${PN} has to set UPDATE_MODULE and ARTIFACT_FILES"
    fi
    set --
    for type in ${ARTIFACT_DEVICE_TYPES}; do
        set -- "$@" --device-type "$type"
    done
    for file in ${ARTIFACT_FILES}; do
        set -- "$@" --file "$file"
    done
    if [ -n "${ARTIFACT_META_DATA}" ]; then
        set -- "$@" --meta-data "${ARTIFACT_META_DATA}"
    fi
    mender-artifact write module-image --type "${UPDATE_MODULE}" --artifact-name "${ARTIFACT_NAME}" \
        --software-filesystem "${ARTIFACT_SOFTWARE_FILESYSTEM}" \
        --output-path "${DEPLOYDIR}/${ARTIFACT_NAME}-${MACHINE}.mender" "$@"
}
# After the sysroot with mender-artifact in it, which do_unpack does not wait for.
addtask deploy before do_build after do_unpack do_prepare_recipe_sysroot
