#!/bin/sh
# Installs, on Debian 12 and its relatives, the programs that the tests and the demo start. Does nothing when all are
# there. Services that the packages bring are not started: the tests run private servers of their own.
#
# usage: tests/stage/install.sh

set -eu
PATH=$PATH:/usr/sbin:/sbin

# What is looked for, and the package that brings it.
needs='
/usr/lib/postgresql/15/bin/initdb       postgresql-15
/usr/lib/postgresql/15/bin/pg_restore   postgresql-client-15
/usr/share/postgresql/15/extension/hstore.control   postgresql-15
pgbouncer   pgbouncer
sshd        openssh-server
/usr/lib/openssh/sftp-server   openssh-sftp-server
ssh         openssh-client
scp         openssh-client
sudo        sudo
nginx       nginx-light
strace      strace
patchelf    patchelf
gcc         gcc
make        make
'

missing_packages() {
    echo "$needs" | while read -r needed package; do
        [ -z "$needed" ] || command -v "$needed" >/dev/null || [ -e "$needed" ] || echo "$package"
    done | sort -u | tr '\n' ' '
}

# Runs its arguments as root.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

give_up() {
    echo "setup: $1; please have an administrator install: $missing" >&2
    exit 1
}

missing=$(missing_packages)
[ -n "$missing" ] || exit 0

command -v apt-get >/dev/null || give_up 'there is no apt-get here'
as_root true 2>/dev/null || give_up 'neither root nor sudo without a password'

# invoke-rc.d and deb-systemd-invoke ask this file whether a service may start; 101 is a no.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'as_root rm -f "$policy"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
fi

echo "setup: installing $missing"
apt() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@"
}
apt update || give_up 'apt-get update failed'
# One word for each package.
# shellcheck disable=SC2086
apt install --yes --no-install-recommends $missing >/dev/null || give_up 'apt-get install failed'

missing=$(missing_packages)
[ -z "$missing" ] || give_up 'apt-get succeeded, and yet something is missing'
