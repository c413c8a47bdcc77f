# What every recipe of an Update Module packages: the executable where the Mender client looks for it, the device's
# settings, and the unit that recovers an interrupted update at boot. update-module builds a module from source; a recipe of
# an executable that is built already inherits this class alone. README.md has the variables.

# The payload type. The client runs the executable of this name.
UPDATE_MODULE ?= "${@d.getVar('BPN').replace('mender-update-module-', '', 1)}"

# The settings and the unit, as paths in the source; empty where there is none.
UPDATE_MODULE_SETTINGS ?= ""
UPDATE_MODULE_UNIT ?= ""

UPDATE_MODULE_DIR = "${datadir}/mender/modules/v3"
UPDATE_MODULE_SETTINGS_DIR = "${sysconfdir}/mender-modules"

FILES:${PN} += "${UPDATE_MODULE_DIR}/${UPDATE_MODULE} ${systemd_system_unitdir}"
# Recommended, not required: the client may be in the image by another name, from another layer than meta-mender-core.
RRECOMMENDS:${PN} += "${@bb.utils.contains('BBFILE_COLLECTIONS', 'mender', 'mender-update', '', d)}"
CONFFILES:${PN} += "${@d.expand('${UPDATE_MODULE_SETTINGS_DIR}/${UPDATE_MODULE}.toml') if d.getVar('UPDATE_MODULE_SETTINGS') else ''}"

# The client's own module of the same name, in the package that UPDATE_MODULES_SPLIT_FROM_CLIENT makes of it.
RCONFLICTS:${PN} += "mender-client-module-${UPDATE_MODULE}"
RREPLACES:${PN} += "mender-client-module-${UPDATE_MODULE}"

# The modules that some version of the client in meta-mender-core installs.
UPDATE_MODULES_OF_CLIENT = "deb directory docker rootfs-image rpm script single-file"

# nooelint: oelint.task.noanonpython - there is no other way to leave a recipe out
python() {
    name = d.getVar('UPDATE_MODULE')
    if 'mender' not in (d.getVar('BBFILE_COLLECTIONS') or '').split():
        return
    if name not in d.getVar('UPDATE_MODULES_OF_CLIENT').split():
        return
    if name not in (d.getVar('UPDATE_MODULES_SPLIT_FROM_CLIENT') or '').split():
        raise bb.parse.SkipRecipe(f'the Mender client has a module {name} too: '
                                  f'add it to UPDATE_MODULES_SPLIT_FROM_CLIENT in your distro or local.conf')
}

def update_module_settings(d):
    """The lines of TOML that UPDATE_MODULE_CONFIG[MODULE.KEY] = "VALUE" and UPDATE_MODULE_CONFIG[MODULE.TABLE.KEY] ask for."""
    tables = {}
    for flag, value in sorted((d.getVarFlags('UPDATE_MODULE_CONFIG') or {}).items()):
        module, _, key = flag.partition('.')
        if module == d.getVar('UPDATE_MODULE'):
            table, _, key = key.rpartition('.')
            tables.setdefault(table, []).append(f'{key} = {d.expand(value)}')
    # Keys outside of tables come first: TOML has no way to leave a table.
    return '\n'.join('\n'.join([f'[{table}]'] * bool(table) + lines) for table, lines in sorted(tables.items()))

UPDATE_MODULE_CONFIG_TEXT = "${@update_module_settings(d)}"
# A signature has a variable's flags only where it is told of them.
do_install[vardeps] += "UPDATE_MODULE_CONFIG_TEXT"
UPDATE_MODULE_CONFIG_TEXT[vardepvalue] = "${UPDATE_MODULE_CONFIG_TEXT}"

# update_module_install EXECUTABLE: for do_install.
# nooelint: oelint.task.docstrings - a function, no task
update_module_install() {
    install -D -m 0755 "$1" "${D}${UPDATE_MODULE_DIR}/${UPDATE_MODULE}"
    if [ -n "${UPDATE_MODULE_SETTINGS}" ]; then
        install -D -m 0644 "${S}/${UPDATE_MODULE_SETTINGS}" "${D}${UPDATE_MODULE_SETTINGS_DIR}/${UPDATE_MODULE}.toml"
        update_module_configure "${D}${UPDATE_MODULE_SETTINGS_DIR}/${UPDATE_MODULE}.toml"
    fi
    # The systemd class is not inherited: its postinst restarts units when a package is upgraded on the device, which would run
    # the recovery in the middle of an update. The links that are shipped enable the unit.
    if [ -n "${UPDATE_MODULE_UNIT}" ] && ${@bb.utils.contains('DISTRO_FEATURES', 'systemd', 'true', 'false', d)}; then
        unit=$(basename "${UPDATE_MODULE_UNIT}")
        install -D -m 0644 "${S}/${UPDATE_MODULE_UNIT}" "${D}${systemd_system_unitdir}/$unit"
        for target in $(sed -n 's/^WantedBy=//p' "${S}/${UPDATE_MODULE_UNIT}"); do
            install -d "${D}${systemd_system_unitdir}/$target.wants"
            ln -s "../$unit" "${D}${systemd_system_unitdir}/$target.wants/$unit"
        done
    fi
}

# update_module_configure FILE: puts the settings of UPDATE_MODULE_CONFIG before those that FILE has as comments.
# nooelint: oelint.task.docstrings - a function, no task
update_module_configure() {
    cat >"${T}/settings.toml" <<'END'
${UPDATE_MODULE_CONFIG_TEXT}
END
    if [ -n "$(tr -d '[:space:]' <"${T}/settings.toml")" ]; then
        { echo "# Set by UPDATE_MODULE_CONFIG when the image was built."; cat "${T}/settings.toml"; echo; cat "$1"; } \
            >"${T}/settings-all.toml"
        install -m 0644 "${T}/settings-all.toml" "$1"
    fi
}
