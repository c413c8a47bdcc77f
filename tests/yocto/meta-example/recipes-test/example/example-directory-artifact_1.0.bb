SUMMARY = "A payload for directory that is made of a directory, signed"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"
SRC_URI = "file://app"
inherit update-module-artifact
UPDATE_MODULE = "directory"
ARTIFACT_DIRECTORY = "${@d.getVar('UNPACKDIR') or d.getVar('WORKDIR')}/app"
ARTIFACT_DEST_DIR = "/data/app"
# The test makes the key.
MENDER_ARTIFACT_SIGNING_KEY = "${TOPDIR}/signing.key"
