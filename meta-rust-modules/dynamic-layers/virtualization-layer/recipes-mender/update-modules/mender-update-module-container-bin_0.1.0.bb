SUMMARY = "Mender Update Module that runs containers (prebuilt, static)"

require recipes-mender/update-modules/mender-update-module-bin.inc
require mender-update-module-container.inc
