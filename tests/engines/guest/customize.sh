#!/bin/sh
# customize.sh ROOT RELEASE, run by mmdebstrap on the finished root.
set -eu
root=$1 release=$2

# The suite may have been asked for by its alias: what it means must be what the tree is made for.
. "$root/etc/os-release"
[ "$VERSION_CODENAME" = "$release" ] || { echo "this is Debian $VERSION_CODENAME, not $release" >&2; exit 1; }

mkdir -p "$root/etc/mender"
echo '{}' >"$root/etc/mender/mender.conf"
echo artifact_name=none >"$root/etc/mender/artifact_info"
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
echo device >"$root/etc/hostname"
printf '127.0.0.1 localhost device\n' >"$root/etc/hosts"

# Units that would change the host, whose kernel this is, and some that only take time.
for unit in systemd-sysctl.service systemd-binfmt.service proc-sys-fs-binfmt_misc.automount systemd-modules-load.service \
    systemd-udevd.service systemd-udev-trigger.service systemd-random-seed.service systemd-pstore.service \
    systemd-remount-fs.service systemd-logind.service systemd-ask-password-console.path \
    systemd-ask-password-wall.path dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount \
    sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount console-getty.service \
    getty.target apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer mender-client.service \
    podman-auto-update.service podman-auto-update.timer systemd-tmpfiles-clean.timer ldconfig.service \
    systemd-journal-catalog-update.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
# A scenario begins with the engine that it is about.
for unit in docker.service docker.socket containerd.service podman.service podman.socket podman-restart.service; do
    rm -f "$root"/etc/systemd/system/*.wants/$unit
done
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb
