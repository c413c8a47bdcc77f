SUMMARY = "Mender Update Module that installs Debian packages (prebuilt, static)"
DESCRIPTION = "Installs, upgrades and removes packages with apt and dpkg, and rolls back to exactly the previous set of packages and configuration files."

require mender-update-module-bin.inc

RDEPENDS:${PN} = "apt dpkg"
