SUMMARY = "Mender Update Module that replaces the files of a web root (prebuilt, static)"
DESCRIPTION = "Replaces the top-level files of a directory, all or none, and rolls back to exactly the previous ones: content, names, owner, mode, times, extended attributes."

require mender-update-module-bin.inc
