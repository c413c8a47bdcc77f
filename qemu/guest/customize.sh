#!/bin/sh
# Configures the root file system of an emulated Raspberry Pi. mmdebstrap runs it after the packages are installed:
# customize.sh ROOT FILES PUBLIC_KEY DEVICE_TYPE RELEASE
set -eu
root=$1 files=$2 public_key=$3 device_type=$4 release=$5

# The suite may be an alias, such as stable. It must be the release that the image is built for.
. "$root/etc/os-release"
[ "$VERSION_CODENAME" = "$release" ] || {
    echo "unexpected Debian release: $VERSION_CODENAME instead of $release" >&2
    exit 1
}

cp --recursive --no-preserve=ownership "$files/." "$root"

# Unsafe writes make the build of the image faster. dpkg on the device must write safely.
sed -i '/unsafe-io/d' "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap"

# Debian's mender-client has /var/lib/mender as a symbolic link to /data/mender.
mkdir -p "$root/data/mender"
echo "device_type=$device_type" >"$root/data/mender/device_type"

mkdir -p "$root/root/.ssh" "$root/etc/dropbear"
cp "$public_key" "$root/root/.ssh/authorized_keys"
chmod 700 "$root/root" "$root/root/.ssh"
chmod 600 "$root/root/.ssh/authorized_keys"
chroot "$root" dropbearkey -t ed25519 -f /etc/dropbear/host_key >/dev/null

echo raspberrypi >"$root/etc/hostname"
printf '127.0.0.1 localhost raspberrypi\n' >"$root/etc/hosts"
# A fixed machine ID: systemd has no first boot to prepare.
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"

units=$root/etc/systemd/system
ln -sf pi.target "$units/default.target"
# The Mender daemon is masked, because scenarios run the client from the command line. So are units that a scenario
# does not need and that lengthen the boot.
for unit in mender-client.service \
    systemd-journal-flush.service systemd-journal-catalog-update.service systemd-update-utmp.service \
    systemd-random-seed.service systemd-sysctl.service systemd-modules-load.service systemd-binfmt.service \
    systemd-machine-id-commit.service systemd-firstboot.service systemd-sysusers.service \
    systemd-remount-fs.service systemd-tmpfiles-setup-dev.service systemd-tmpfiles-setup-dev-early.service \
    systemd-tmpfiles-clean.timer systemd-pcrphase.service systemd-pcrphase-sysinit.service ldconfig.service \
    modprobe@efi_pstore.service systemd-ask-password-console.path systemd-ask-password-wall.path \
    systemd-hwdb-update.service systemd-update-done.service systemd-pstore.service \
    dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
    sys-kernel-config.mount sys-fs-fuse-connections.mount proc-sys-fs-binfmt_misc.automount \
    systemd-user-sessions.service systemd-logind.service getty.target apt-daily.timer apt-daily-upgrade.timer \
    podman.service podman.socket podman-restart.service podman-clean-transient.service podman-auto-update.service \
    podman-auto-update.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer e2scrub_reap.service; do
    ln -sf /dev/null "$units/$unit"
done
# Generators read every unit file again, which is slow. Only podman's is needed: it makes units of quadlets.
for generator in "$root"/usr/lib/systemd/system-generators/*; do
    [ "${generator##*/}" != podman-system-generator ] || continue
    mkdir -p "$root/etc/systemd/system-generators"
    ln -sf /dev/null "$root/etc/systemd/system-generators/${generator##*/}"
done
