SUMMARY = "Mender Update Module that replaces one file (prebuilt, static)"
DESCRIPTION = "Replaces one file, and rolls back to exactly the previous file."

require mender-update-module-bin.inc
