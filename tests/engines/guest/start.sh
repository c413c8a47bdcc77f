#!/bin/sh
# start.sh TREE DIRECTORY NAME GUEST: gives the device namespaces of its own, and a control group of its own in a
# hierarchy that the host need not have mounted: two devices must not share one, because each has a systemd.
set -eu
tree=$1 directory=$2 name=$3 guest=$4
groups=$directory/groups
mkdir -p "$groups"
mount --make-rprivate /
mount -t cgroup2 cgroup2 "$groups"
# What the device's boot before this one has left; a control group that still has processes cannot be removed.
[ ! -d "$groups/$name" ] || find "$groups/$name" -depth -type d -exec rmdir {} \;
[ -z "${5-}" ] || exit 0 # only that
mkdir -p "$groups/$name"
echo $$ >"$groups/$name/cgroup.procs"
umount "$groups"
exec unshare --pid --uts --ipc --net --cgroup --mount --fork --kill-child sh "$guest/boot.sh" "$tree" "$directory"
