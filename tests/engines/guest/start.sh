#!/bin/sh
# start.sh TREE DIRECTORY NAME GUEST [clean]: starts a device in new namespaces and in a new control group. The
# hierarchy is mounted here, because the host may not have it. Two devices must not share a control group: each has a
# systemd.
set -eu
tree=$1 directory=$2 name=$3 guest=$4
groups=$directory/groups
mkdir -p "$groups"
mount --make-rprivate /
mount -t cgroup2 cgroup2 "$groups"
# Control groups of the device's previous boot. One that still has processes cannot be removed.
[ ! -d "$groups/$name" ] || find "$groups/$name" -depth -type d -exec rmdir {} \;
[ -z "${5-}" ] || exit 0 # clean: only that
mkdir -p "$groups/$name"
echo $$ >"$groups/$name/cgroup.procs"
umount "$groups"
exec unshare --pid --uts --ipc --net --cgroup --mount --fork --kill-child sh "$guest/boot.sh" "$tree" "$directory"
