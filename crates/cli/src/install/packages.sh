# Installs what a machine of a site needs and does not have; prints `installed WHAT` for each of it.
# role: database or other. build, requirements: what pip installs where the system's Patroni is too old.
set -eu
LC_ALL=C PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l NEEDRESTART_SUSPEND=1
export LC_ALL PATH DEBIAN_FRONTEND NEEDRESTART_MODE NEEDRESTART_SUSPEND
umask 022
own_patroni=/opt/gaiola/patroni
# As crates/agent/src/engine/tools.rs has it.
oldest_patroni=4.0.7

fail() { echo "$*" >&2; exit 1; }
is_installed() { dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed; }
is_known() { apt-cache policy "$1" 2>/dev/null | grep -q '^  Candidate: [^(]'; }
# at_least FOUND LEAST
at_least() { [ -n "$1" ] && [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }
first_version() { sed -n 's/^[^0-9]*\([0-9][0-9.]*\).*/\1/p' | head -n 1; }

# A service that a package starts by itself never runs: the site starts its own. One that is there already is not touched.
mask() {
    for unit in "$@"; do
        if ! systemctl cat "$unit" >/dev/null 2>&1 && ! systemctl is-enabled "$unit" 2>/dev/null | grep -q masked; then
            systemctl --quiet mask "$unit" 2>/dev/null || fail "cannot mask $unit"
        fi
    done
}

no_default_cluster() {
    conf=/etc/postgresql-common/createcluster.conf
    if ! grep -qs '^[[:space:]]*create_main_cluster[[:space:]]*=[[:space:]]*false' "$conf"; then
        mkdir -p "${conf%/*}"
        echo 'create_main_cluster = false' >>"$conf"
    fi
}

# An upgrade of a library must not restart what a site runs: that would be a failover.
spare_from_needrestart() {
    conf=/etc/needrestart/conf.d/gaiola.conf
    if ! [ -e "$conf" ]; then
        mkdir -p "${conf%/*}"
        # shellcheck disable=SC2016 # Perl's variable
        echo '$nrconf{override_rc}{qr(^gaiola-)} = 0;' >"$conf"
    fi
}

# Leaves what it complained about in `said`.
apt_get() {
    said=$(apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confdef \
        -o Dpkg::Options::=--force-confold "$@" 2>&1 >/dev/null)
}

complained() { printf '%s\n' "$said" | tail -n 3; }
reach_mirrors='let the machine reach the mirrors that /etc/apt names, or name others there'

# A lock that was waited for, and what a power cut in the middle of an installation left: nothing that another mirror would change.
mend_or_fail() {
    case $said in
        *[Cc]'ould not get lock'* | *'nable to acquire the dpkg'*)
            fail "another process holds the lock of apt: $(complained); wait for its end, or end it" ;;
        *'dpkg was interrupted'*) dpkg --force-confdef --force-confold --configure -a >&2 ;;
        *'No space left on device'* | *"don't have enough free space"*) fail "apt-get: $(complained)" ;;
    esac
}

# The lock of the lists is not waited for by apt itself.
update() {
    tries=0
    until said=$(apt-get -qq update 2>&1); do
        tries=$((tries + 1))
        case $said in
            *'Could not get lock'*) [ $tries -lt 60 ] || fail "another process holds the lock of apt: $(complained); wait for its end, or end it" ;;
            *) fail "apt-get update: $(complained); $reach_mirrors" ;;
        esac
        sleep 5
    done
}

all_known() {
    for package in "$@"; do
        is_known "$package" || return 1
    done
}

install_packages() {
    if ! all_known "$@"; then
        update
        # It ends well also where it reached no mirror.
        all_known "$@" || fail "no mirror was found that has all of these packages: $*; apt-get update: $(complained); $reach_mirrors"
    fi
    if ! apt_get install "$@"; then
        mend_or_fail
        # Old lists name files that the archive no longer has.
        update
        if ! apt_get install "$@"; then
            mend_or_fail
            case $said in
                *'ailed to fetch'* | *'nable to fetch'*) fail "apt-get install $*: $(complained); $reach_mirrors" ;;
                *) fail "apt-get install $*: $(complained)" ;;
            esac
        fi
    fi
    for package in "$@"; do echo "installed $package"; done
}

patroni_is_there() {
    for program in "$own_patroni/bin/patroni" patroni; do
        if version=$("$program" --version 2>/dev/null) && at_least "$(echo "$version" | first_version)" "$oldest_patroni"; then
            return 0
        fi
    done
    return 1
}

# Made beside the one in use, and put in its place by a link once everything is there.
install_patroni() {
    pinned=$(printf '%s\n' "$requirements" | sed -n 's/^patroni==\([0-9.]*\).*/\1/p')
    new=$own_patroni-$pinned
    rm -rf "$new"
    mkdir -p "${new%/*}"
    python3 -m venv "$new"
    for wanted in "$build" "$requirements"; do
        printf '%s\n' "$wanted" >"$new/wanted.txt"
        if ! said=$("$new/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
            --require-hashes -r "$new/wanted.txt" 2>&1); then
            fail "cannot install Patroni $pinned with pip: $(echo "$said" | tail -n 2); let the machine reach PyPI, or name a mirror in /etc/pip.conf"
        fi
    done
    ln -sfn "${new##*/}" "$own_patroni"
    echo "installed patroni-$pinned"
}

command -v systemctl >/dev/null || fail 'systemd is not there'
spare_from_needrestart
missing=
need() { is_installed "$1" || missing="$missing $1"; }
need ca-certificates
need iproute2
need nftables
if ! command -v etcd >/dev/null; then
    mask etcd.service
    need etcd-server
fi
if [ "$role" = database ]; then
    if ! ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1; then
        mask postgresql.service
        no_default_cluster
        need postgresql
    fi
    if ! patroni_is_there; then
        need python3
        need python3-venv
        need libpq5
    fi
fi
# shellcheck disable=SC2086 # names of packages, one word each
if [ -n "$missing" ]; then install_packages $missing; fi
at_least "$(etcd --version 2>/dev/null | first_version)" 3.4 ||
    fail "etcd $(etcd --version | first_version) is too old: install 3.4 to 3.6 into /usr/local/bin"
if [ "$role" = database ] && ! patroni_is_there; then install_patroni; fi
if ! getent passwd gaiola-site >/dev/null; then
    useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin gaiola-site
    echo 'installed the user gaiola-site'
fi
