inherit update-modules-split

UPDATE_MODULES_CLIENT_PACKAGE = "mender-update"
