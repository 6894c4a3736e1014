# Leaves a machine as it was before it became part of a site, packages aside. Prints `removed WHAT` for each thing that was there.
# site: its name; state: its directory; authority: the sum of its authority's certificate, and own_authority prints that of this machine.
# idle: yes: nothing of the site may still run there.
set -u
# As a function: what has arrived only in part is not run.
main() {
LC_ALL=C PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export LC_ALL PATH
failed=

fail() { echo "$*" >&2; exit 1; }
removed() { echo "removed $*"; }
not_removed() { failed="$failed; $*"; }

for part in /var/lib/gaiola/*/machine.json; do
    if [ -e "$part" ] && [ "$part" != "$state/machine.json" ]; then
        other=${part%/machine.json}
        fail "this machine is part of the site ${other##*/}, not of $site: nothing was removed"
    fi
done

# A name is no proof: a machine of another site may answer to it by now, and that site may have this one's name.
own=$(own_authority)
if [ -n "$own" ] && [ "$own" != "$authority" ]; then
    fail "this machine is part of another site named $site, whose authority is another one: nothing was removed"
fi

# A machine that left the site has switched its servers off, or is about to.
tries=0
while [ "$idle" = yes ] && [ -n "$(systemctl list-units --plain --no-legend --state=active 'gaiola-agent@*' 'gaiola-database@*' 2>/dev/null)" ]; do
    tries=$((tries + 1))
    [ $tries -le 40 ] || fail "servers still run on this machine: nothing was removed"
    sleep 0.5
done

# The machine's own process first: it would start the others again.
units=$(systemctl list-units --all --plain --no-legend --full gaiola-machine.service gaiola-drill-undo.service gaiola-drill-undo.timer 'gaiola-agent@*' 'gaiola-keeper@*' 'gaiola-database@*' 2>/dev/null | awk '{ print $1 }')
# shellcheck disable=SC2086 # names of units, one word each
if [ -n "$units" ]; then
    systemctl stop gaiola-machine.service gaiola-drill-undo.timer 2>/dev/null
    systemctl stop $units 2>/dev/null
fi
# What a unit left behind belongs to its control group still.
left() {
    find /sys/fs/cgroup -regex '.*/system\.slice/\(.*/\)?gaiola-\(machine\|drill-undo\|\(agent\|keeper\|database\)@[^/]*\)\.service\(/.*\)?/cgroup\.procs' -exec cat {} + 2>/dev/null
}
tries=0
while pids=$(left) && [ -n "$pids" ]; do
    tries=$((tries + 1))
    if [ $tries -gt 100 ]; then
        not_removed "processes that a kill does not end: $(echo "$pids" | tr '\n' ' ')"
        break
    fi
    # shellcheck disable=SC2086 # numbers
    kill -KILL $pids 2>/dev/null
    sleep 0.1
done
if [ -n "$units" ]; then removed "$(echo "$units" | wc -l) units of systemd that ran"; fi

gone=
for file in /etc/systemd/system/gaiola-machine.service /etc/systemd/system/gaiola-agent@*.service /etc/systemd/system/gaiola-keeper@*.service \
    /etc/systemd/system/gaiola-database@*.service /etc/systemd/system/*.wants/gaiola-machine.service /etc/systemd/system/*.wants/gaiola-agent@*.service \
    /etc/systemd/system/*.wants/gaiola-keeper@*.service /etc/systemd/system/*.wants/gaiola-database@*.service /run/systemd/system/gaiola-drill-undo.*; do
    if [ -e "$file" ] || [ -L "$file" ]; then
        rm -rf "$file" && gone=yes || not_removed "$file"
    fi
done
if [ -n "$gone" ]; then
    systemctl daemon-reload
    systemctl reset-failed gaiola-machine.service gaiola-drill-undo.service gaiola-drill-undo.timer 'gaiola-agent@*' 'gaiola-keeper@*' 'gaiola-database@*' 2>/dev/null
    removed "the units of systemd"
fi

for table in 'inet gaiola' 'netdev gaiola_drill'; do
    # shellcheck disable=SC2086 # a family and a name
    if nft list table $table >/dev/null 2>&1; then
        nft delete table $table && removed "the table $table of nftables" || not_removed "the table $table of nftables"
    fi
done

remove() {
    # A file system of its own, or another directory: what is in it goes, and it stays.
    real=$(readlink -f "$1")
    if [ -d "$1" ] && { mountpoint -q "$1" || [ -L "$1" ]; }; then
        if find "$real" -xdev -mindepth 1 -delete 2>/dev/null; then removed "what was in $1"; else not_removed "$1"; fi
        return
    fi
    if [ -e "$1" ] || [ -L "$1" ]; then
        rm -rf "$1" 2>/dev/null
        if [ -e "$1" ]; then not_removed "$1"; else removed "$1"; fi
    fi
}
remove "$state"
# The lock of whoever empties it stays.
for file in /run/gaiola/*; do
    case $file in
        /run/gaiola/lock*) ;;
        *) remove "$file" ;;
    esac
done
# Patroni is there where the distribution has none that is new enough: a package like the others.
for file in /opt/gaiola/* /opt/gaiola/.current.new; do
    case $file in
        /opt/gaiola/patroni*) ;;
        *) remove "$file" ;;
    esac
done
rmdir /opt/gaiola 2>/dev/null && removed /opt/gaiola
remove /etc/needrestart/conf.d/gaiola.conf
rmdir /etc/needrestart/conf.d /etc/needrestart 2>/dev/null
# Other sites of this machine's own user, such as a lab, keep their directories and the users.
if rmdir /var/lib/gaiola 2>/dev/null || ! [ -e /var/lib/gaiola ]; then
    for user in gaiola-site gaiola-store; do
        if getent passwd "$user" >/dev/null; then
            userdel "$user" 2>/dev/null && removed "the user $user" || not_removed "the user $user"
        fi
    done
fi
if [ -n "$failed" ]; then fail "not removed: ${failed#; }"; fi
}
main </dev/null
