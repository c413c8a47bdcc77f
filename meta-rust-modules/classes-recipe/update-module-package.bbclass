# What every recipe of an Update Module packages: the executable where the Mender client looks for it, the device's
# settings, and the unit that ends an interrupted update at boot. update-module builds one from source; a recipe of
# something that is built already inherits this class alone.

# The payload type. The client runs the executable of this name.
UPDATE_MODULE ?= "${@d.getVar('BPN').replace('mender-update-module-', '', 1)}"

# The settings and the unit, as paths in the source; empty where there is none.
UPDATE_MODULE_SETTINGS ?= ""
UPDATE_MODULE_UNIT ?= ""

UPDATE_MODULE_DIR = "${datadir}/mender/modules/v3"
UPDATE_MODULE_SETTINGS_DIR = "${sysconfdir}/mender-modules"

FILES:${PN} += "${UPDATE_MODULE_DIR}/${UPDATE_MODULE}"
# Recommended, not required: the client may be in the image by another name, from another layer than meta-mender-core.
RRECOMMENDS:${PN} += "${@bb.utils.contains('BBFILE_COLLECTIONS', 'mender', 'mender-update', '', d)}"
CONFFILES:${PN} += "${@d.expand('${UPDATE_MODULE_SETTINGS_DIR}/${UPDATE_MODULE}.toml') if d.getVar('UPDATE_MODULE_SETTINGS') else ''}"

inherit_defer ${@'systemd' if d.getVar('UPDATE_MODULE_UNIT') else ''}
SYSTEMD_SERVICE:${PN} = "${@os.path.basename(d.getVar('UPDATE_MODULE_UNIT'))}"

# update_module_install EXECUTABLE: for do_install.
# nooelint: oelint.task.docstrings - a function, no task
update_module_install() {
    install -D -m 0755 "$1" "${D}${UPDATE_MODULE_DIR}/${UPDATE_MODULE}"
    if [ -n "${UPDATE_MODULE_SETTINGS}" ]; then
        install -D -m 0644 "${S}/${UPDATE_MODULE_SETTINGS}" "${D}${UPDATE_MODULE_SETTINGS_DIR}/${UPDATE_MODULE}.toml"
    fi
    if [ -n "${UPDATE_MODULE_UNIT}" ]; then
        install -D -m 0644 "${S}/${UPDATE_MODULE_UNIT}" "${D}${systemd_system_unitdir}/$(basename ${UPDATE_MODULE_UNIT})"
    fi
}
