SUMMARY = "Mender Update Module that replaces one file"
DESCRIPTION = "Replaces one file, and rolls back to exactly what was there."

require mender-update-module.inc

inherit update-module
