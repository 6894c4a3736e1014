# Prints what `gaiola doctor` judges, one fact per line: KEY VALUE. Changes nothing.
# `peers` has the addresses and ports of the other machines' sshd.
LC_ALL=C
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export LC_ALL PATH

has() { command -v "$1" >/dev/null 2>&1; }
# The unit of systemd that a process belongs to.
unit_of() {
    unit=$(sed -n 's/.*\/\([^/]*\.\(service\|scope\)\)\(\/.*\)\{0,1\}$/\1/p' "/proc/$1/cgroup" 2>/dev/null | head -n 1)
    echo "${unit:--}"
}

if [ -d /run/systemd/system ]; then echo systemd yes; fi
if has apt-get; then echo apt yes; fi
if [ -r /etc/os-release ]; then (. /etc/os-release && echo "distribution $ID $VERSION_ID"); fi
echo "architecture $(uname -m)"
echo "host-name $(uname -n)"
glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null)
if [ -n "$glibc" ]; then echo "glibc ${glibc#* }"; fi
# What is free where a directory is or will be: either may be a disk of its own.
free_below() {
    at=$1
    until [ -d "$at/" ]; do at=${at%/*}; done
    df -Pk "$at/" 2>/dev/null | awk -v key="$2" 'NR == 2 { print key, $4 }'
}
free_below /var/lib/gaiola disk-kib
free_below /opt/gaiola program-kib
awk '/^MemTotal:/ { print "memory-kib", $2 }' /proc/meminfo
if [ -r /etc/machine-id ]; then echo "machine-id $(cat /etc/machine-id)"; fi
if has ip; then
    ip -o addr show | awk '$3 == "inet" || $3 == "inet6" { sub(/@.*/, "", $2); print "address", $4, $2 }'
fi

if has ss; then
    echo ports known
    ss -Hltnp | while read -r _ _ _ at _ users; do
        process=- unit=-
        case $users in
            *pid=*)
                process=${users#*\"} pid=${users#*pid=}
                process=${process%%\"*} pid=${pid%%[!0-9]*}
                unit=$(unit_of "$pid")
                ;;
        esac
        echo "port $at $process $unit"
    done
fi

for process in /proc/[0-9]*; do
    read -r name 2>/dev/null <"$process/comm" || continue
    case $name in
        postgres | patroni | etcd) echo "service $name $(unit_of "${process#/proc/}")" ;;
    esac
done

for setup in /var/lib/gaiola/*/machine.json; do
    if [ -e "$setup" ]; then
        site=${setup%/machine.json}
        echo "site ${site##*/}"
    fi
done
for key in /var/lib/gaiola/*/ca/ca-key.pem; do
    if [ -e "$key" ]; then
        site=${key%/ca/ca-key.pem}
        echo "authority ${site##*/}"
    fi
done
if program=$(readlink /opt/gaiola/current 2>/dev/null); then echo "program ${program##*/}"; fi
if has systemctl && systemctl --quiet is-active gaiola-machine 2>/dev/null; then echo running yes; fi

for lock in /var/lib/dpkg/lock-frontend /var/lib/apt/lists/lock; do
    inode=$(stat -c %i "$lock" 2>/dev/null) || continue
    pid=$(awk -v inode="$inode" '{ n = split($6, at, ":"); if (at[n] == inode) { print $5; exit } }' /proc/locks)
    if [ -n "$pid" ]; then
        holder=$(cat "/proc/$pid/comm" 2>/dev/null)
        echo "apt-lock ${holder:-another process}"
        break
    fi
done
if [ -e /run/cloud-init/enabled ] && ! [ -e /run/cloud-init/result.json ]; then echo cloud-init running; fi

# A port that refuses is reached too: something answered.
if has bash && has timeout; then
    for peer in $peers; do
        (
            address=${peer%:*} port=${peer##*:}
            address=${address#\[}
            address=${address%\]}
            said=$(timeout 3 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$address" "$port" 2>&1)
            case $?/$said in
                0/* | *'Connection refused'*) echo "reaches $peer yes" ;;
                *) echo "reaches $peer no" ;;
            esac
        ) &
    done
    wait
fi
exit 0
