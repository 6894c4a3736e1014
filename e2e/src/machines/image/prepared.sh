# prepared.sh ROOT SCRIPTS LAYERS UPPER WORK WHEELS: what a site's servers need on top of a bare machine: PostgreSQL, etcd, and the
# Patroni that Gaiola accepts, installed as scripts/setup installs it. ROOT is where the new layer is seen whole. To be run in a
# mount namespace of its own; installing uses this host's network. What pip installs is kept in WHEELS too.
set -eu
root=$1 scripts=$2 layers=$3 upper=$4 work=$5 wheels=$6

mount -t overlay overlay -o "lowerdir=$layers,upperdir=$upper,workdir=$work" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
# This host's name servers, and the authorities that it trusts.
for file in /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt; do
    touch "$root$file"
    mount --bind "$(realpath "$file")" "$root$file"
done

inside() {
    # The image's own pip.conf leads to the rack.
    chroot "$root" env DEBIAN_FRONTEND=noninteractive PIP_CONFIG_FILE=/dev/null "$@"
}
apt() {
    inside apt-get -qq -o Acquire::http::Proxy=DIRECT -o DPkg::Options::=--force-unsafe-io "$@"
}

# Before they are installed: Debian's packages start their services and a cluster at once.
inside systemctl --quiet mask etcd.service patroni.service postgresql.service
mkdir -p "$root/etc/postgresql-common"
echo 'create_main_cluster = false' >"$root/etc/postgresql-common/createcluster.conf"
apt update
apt install --yes --no-install-recommends postgresql etcd-server etcd-client python3-venv libpq5 >/dev/null
apt clean
rm -rf "$root"/var/lib/apt/lists/*

version=$(sed -n 's/^patroni==\([0-9.]*\).*/\1/p' "$scripts/patroni/requirements.txt")
home=/opt/gaiola/patroni-$version
inside python3 -m venv "$home"
mkdir "$root/wheels"
mount --bind "$wheels" "$root/wheels"
for file in build requirements; do
    cp "$scripts/patroni/$file.txt" "$root$home/$file.txt"
    inside "$home/bin/python" -m pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps \
        --no-build-isolation --require-hashes --dest /wheels -r "$home/$file.txt"
    inside "$home/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-deps \
        --no-build-isolation --require-hashes -r "$home/$file.txt"
done
umount "$root/wheels"
rmdir "$root/wheels"
ln -sfn "${home##*/}" "$root/opt/gaiola/patroni"
