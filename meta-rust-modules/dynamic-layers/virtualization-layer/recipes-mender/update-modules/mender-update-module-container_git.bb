SUMMARY = "Mender Update Module that runs containers (from git)"

require recipes-mender/update-modules/mender-update-module-git.inc
require mender-update-module-container.inc

inherit update-module
