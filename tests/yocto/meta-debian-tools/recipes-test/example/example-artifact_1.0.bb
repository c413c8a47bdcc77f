SUMMARY = "An artifact for a module, as the layer's README shows it"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"
SRC_URI = "file://index.html"
inherit update-module-artifact
UPDATE_MODULE = "web-file"
ARTIFACT_FILES = "${@d.getVar('UNPACKDIR') or d.getVar('WORKDIR')}/index.html"
