# A Mender Artifact for an Update Module, deployed beside the images. README.md has the variables.

inherit deploy nopackages

# mender-artifact is a recipe of meta-mender-core. Nothing is compiled.
INHIBIT_DEFAULT_DEPS = "1"
DEPENDS += "mender-artifact-native"

# The payload's files lie side by side, in no directory of their own. scarthgap has no UNPACKDIR.
S = "${@d.getVar('UNPACKDIR') or d.getVar('WORKDIR')}"
B = "${WORKDIR}/artifact"

ARTIFACT_NAME ?= "${PN}-${PV}"
ARTIFACT_DEVICE_TYPES ?= "${@d.getVar('MENDER_DEVICE_TYPES_COMPATIBLE') or d.getVar('MACHINE')}"
# An update of the root file system removes what was installed there: only what is on the data partition stays.
ARTIFACT_SOFTWARE_FILESYSTEM ?= "${@'data-partition' if (update_module_destination(d) + '/').startswith('/data/') else 'rootfs-image'}"
ARTIFACT_SOFTWARE_FILESYSTEM[vardepvalue] = "${ARTIFACT_SOFTWARE_FILESYSTEM}"
UPDATE_MODULE ?= ""
ARTIFACT_FILES ?= ""
ARTIFACT_IMAGE_FILES ?= ""
ARTIFACT_DEPENDS ?= ""
ARTIFACT_DIRECTORY ?= ""
ARTIFACT_DEST_DIR ?= ""
ARTIFACT_META_DATA ?= ""
ARTIFACT_EXTRA_ARGS ?= ""
# meta-mender-core's variable: the key that signs the artifacts of root file systems too.
MENDER_ARTIFACT_SIGNING_KEY ?= ""

# What it is for depends on the machine.
PACKAGE_ARCH = "${MACHINE_ARCH}"

do_configure[noexec] = "1"
do_compile[noexec] = "1"
do_install[noexec] = "1"

# The recipes that deploy what ARTIFACT_IMAGE_FILES names.
do_deploy[depends] += "${@' '.join(recipe if ':' in recipe else f'{recipe}:do_deploy' for recipe in d.getVar('ARTIFACT_DEPENDS').split())}"
# Files that no SRC_URI names are part of the signature too.
do_deploy[file-checksums] += "${@update_module_artifact_inputs(d)}"

def update_module_destination(d):
    """The directory on the device that the payload goes to, as far as the build knows it."""
    configured = d.getVarFlag('UPDATE_MODULE_CONFIG', d.getVar('UPDATE_MODULE') + '.dest_dir') or ''
    return d.getVar('ARTIFACT_DEST_DIR') or configured.strip('"\'')

def update_module_artifact_inputs(d):
    """The files and directories that the artifact is made of, but those that are unpacked or deployed by recipes."""
    inputs = d.getVar('ARTIFACT_FILES').split()
    inputs += [d.getVar(name) for name in ('ARTIFACT_META_DATA', 'ARTIFACT_DIRECTORY', 'MENDER_ARTIFACT_SIGNING_KEY')]
    made = tuple(d.getVar(name) + '/' for name in ('WORKDIR', 'DEPLOY_DIR_IMAGE') if d.getVar(name))
    named = [path for path in inputs if path and path.startswith('/') and not (path + '/').startswith(made)]
    return ' '.join(f'{path}:{os.path.exists(path)}' for path in named)

do_deploy() {
    if [ -z "${UPDATE_MODULE}" ]; then
        bbfatal "${PN}: no payload type: set UPDATE_MODULE to the name of the Update Module"
    fi
    if [ -z "${ARTIFACT_FILES}${ARTIFACT_IMAGE_FILES}${ARTIFACT_DIRECTORY}" ]; then
        bbfatal "${PN}: no payload: set ARTIFACT_FILES, ARTIFACT_IMAGE_FILES or ARTIFACT_DIRECTORY"
    fi
    # Since version 4.3, mender-artifact calls device types compatible types.
    flag=--device-type
    if mender-artifact write module-image --help | grep -q -e --compatible-types; then
        flag=--compatible-types
    fi
    set --
    for type in ${ARTIFACT_DEVICE_TYPES}; do
        set -- "$@" $flag "$type"
    done
    for file in ${ARTIFACT_FILES}; do
        set -- "$@" --file "$file"
    done
    for file in ${ARTIFACT_IMAGE_FILES}; do
        set -- "$@" --file "${DEPLOY_DIR_IMAGE}/$file"
    done
    if [ -n "${ARTIFACT_DIRECTORY}" ]; then
        if [ -z "${ARTIFACT_DEST_DIR}" ]; then
            bbfatal "${PN}: no destination for ${ARTIFACT_DIRECTORY}: set ARTIFACT_DEST_DIR to the path on the device"
        fi
        if [ -z "$(ls -A "${ARTIFACT_DIRECTORY}")" ]; then
            bbfatal "${PN}: no payload: ${ARTIFACT_DIRECTORY} is empty"
        fi
        # The payload of the client's own module directory, which ours takes too.
        printf '%s\n' "${ARTIFACT_DEST_DIR}" >"${B}/dest_dir"
        tar --create --file "${B}/update.tar" --directory "${ARTIFACT_DIRECTORY}" --sort=name --format=posix \
            --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime \
            --mtime="@${@d.getVar('SOURCE_DATE_EPOCH') or '0'}" --owner=0 --group=0 --numeric-owner --mode=u-s,g-s .
        touch --date="@${@d.getVar('SOURCE_DATE_EPOCH') or '0'}" "${B}/dest_dir" "${B}/update.tar"
        set -- "$@" --file "${B}/dest_dir" --file "${B}/update.tar"
    fi
    if [ -n "${ARTIFACT_META_DATA}" ]; then
        set -- "$@" --meta-data "${ARTIFACT_META_DATA}"
    fi
    if [ -n "${MENDER_ARTIFACT_SIGNING_KEY}" ]; then
        set -- "$@" --key "${MENDER_ARTIFACT_SIGNING_KEY}"
    fi
    mender-artifact write module-image --type "${UPDATE_MODULE}" --artifact-name "${ARTIFACT_NAME}" \
        --software-filesystem "${ARTIFACT_SOFTWARE_FILESYSTEM}" ${ARTIFACT_EXTRA_ARGS} \
        --output-path "${DEPLOYDIR}/${ARTIFACT_NAME}-${MACHINE}.mender" "$@"
    # Of some errors, such as unreadable meta-data, it reports success.
    if [ ! -s "${DEPLOYDIR}/${ARTIFACT_NAME}-${MACHINE}.mender" ]; then
        bbfatal "${PN}: no artifact was written: see the error of mender-artifact above"
    fi
}
# After the sysroot with mender-artifact in it, which do_unpack does not wait for.
addtask deploy before do_build after do_unpack do_prepare_recipe_sysroot
