SUMMARY = "Mender Update Module that replaces one file (prebuilt, static)"
DESCRIPTION = "Replaces one file, and rolls back to exactly what was there."

require mender-update-module-bin.inc
