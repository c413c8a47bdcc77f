SUMMARY = "Mender Update Module that runs containers"

require recipes-mender/update-modules/mender-update-module.inc
require mender-update-module-container.inc

inherit update-module
