# bare.sh ROOT SUITE PROXY: a Debian that boots, is reached by ssh, and has nothing of Gaiola's. The lines of its sources.list
# come on standard input.
set -eu
root=$1 suite=$2 proxy=$3
sources=$(cat)

# The clock of this host may be wrong by more than a release file is valid for.
printf '%s\n' "$sources" | mmdebstrap --quiet --mode=root --variant=minbase --dpkgopt=force-unsafe-io \
    --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Check-Date "false"' \
    --include=systemd,systemd-sysv,libpam-systemd,dbus,openssh-server,sudo,iproute2,iputils-ping \
    --include=ca-certificates,nftables,procps,netbase \
    "$suite" "$root" -

# Each machine gets its own identity and its own addresses later.
: >"$root/etc/machine-id"
rm -f "$root"/etc/ssh/ssh_host_*_key "$root"/etc/ssh/ssh_host_*_key.pub "$root/var/lib/dbus/machine-id"
rm -f "$root/etc/apt/apt.conf.d/99mmdebstrap"
# There is no name server; what is not in /etc/hosts is unknown at once.
echo 'nameserver 127.0.0.1' >"$root/etc/resolv.conf"

printf '%s\n' "$sources" >"$root/etc/apt/sources.list"
cat >"$root/etc/apt/apt.conf.d/90proxy" <<APT
Acquire::http::Proxy "$proxy";
Acquire::Check-Valid-Until "false";
Acquire::Check-Date "false";
Acquire::Languages "none";
APT

cat >"$root/etc/pip.conf" <<PIP
[global]
no-index = true
find-links = $proxy/wheels/
trusted-host = ${proxy#http://}
PIP

# Pid 1. Where control groups have version 1, systemd-nspawn mounts the controllers read-only, and no limit of a unit would hold.
cat >"$root/usr/local/sbin/power-on" <<'INIT'
#!/bin/sh
for controller in memory pids cpuacct; do
    if [ -d "/sys/fs/cgroup/$controller" ]; then
        mount -o remount,bind,rw "/sys/fs/cgroup/$controller"
    fi
done
exec /sbin/init
INIT
chmod 755 "$root/usr/local/sbin/power-on"

chroot "$root" useradd --create-home --shell /bin/bash ops
echo 'ops ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/ops"
chmod 440 "$root/etc/sudoers.d/ops"
chroot "$root" systemctl --quiet enable systemd-networkd ssh
# No console and no clock of its own, and nothing that installs by itself in the middle of a test.
chroot "$root" systemctl --quiet mask \
    console-getty.service systemd-timesyncd.service apt-daily.timer apt-daily-upgrade.timer
