SUMMARY = "A payload that another recipe deploys, and a file that no SRC_URI names"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"
inherit update-module-artifact
UPDATE_MODULE = "web-file"
ARTIFACT_DEPENDS = "example-artifact"
ARTIFACT_IMAGE_FILES = "example-artifact-1.0-${MACHINE}.mender"
# The test makes the file.
ARTIFACT_FILES = "${TOPDIR}/outside.html"
