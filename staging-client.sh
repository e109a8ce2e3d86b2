#!/bin/sh
# staging-client.sh <pgbouncer.xxxx.ini> <port>
# staging-client.sh service <start|stop|status> <pgbouncer|postgresql>
#
# The first form installs a pgbouncer.ini that was copied into the current folder, and makes the pgbouncer on <port> reload it.
# pg_staging runs it on the host of pgbouncer, usually so: ssh host sudo ./staging-client.sh pgbouncer.ab12.ini 6432
#
# The first line of the file says what it is for; the rest is the new pgbouncer.ini, to the byte:
#   ; pg_staging 1 base=<sha256 of the present ini> conf=<path of pgbouncer.ini> user=<pgbouncer's admin user>
#
# Exit codes: 0 installed and confirmed; 2 usage or bad input; 3 the present ini is not the one it is based on;
# 4 pgbouncer refused; 5 pgbouncer not reachable; 6 another run holds the lock; 1 anything else.
# Whatever fails, the old file is in place, or put back, and the copied file is removed.
#
# The second form starts or stops a service of this host, or says whether it runs: by systemctl where systemd runs, else by
# service(8). Its last line on standard output is `pg_staging: <service> is running`, or `is stopped`, or after start and
# stop `pg_staging: <service> <action> done`. Exit codes: 0, 2 and 1 as above. The administrator of the host may say
# otherwise in /etc/pg_staging/client.conf:
#   pgbouncer_service=NAME, postgresql_service=NAME   other names, such as postgresql@15-main
#   service_command=PROGRAM   is run as `PROGRAM <action> <name>`, and ends as init scripts do (LSB): with 0 when the
#                             service runs or the action succeeded, and for status with 1, 2 or 3 when it does not run
#
# Beside pgbouncer.ini it leaves <conf>.pg_staging.lock and the last ten versions,
# <conf>.pg_staging.<UTC time>.<n>: the old files themselves, so they keep their owner and mode.
#
# What it may do for whom. Under sudo it holds power that its caller lacks, so it trusts nothing that the caller can choose:
# - The upload is read and removed as the caller, and checked in a private copy that nobody else can change.
# - Only [databases] may differ from the present file: the other sections name files, users and programs.
# - conf must be one that the host's administrator gave away: below /etc/pgbouncer, or a line
#   `pgbouncer_conf=PATH` in /etc/pg_staging/client.conf, or the file that a running pgbouncer of that file's own owner says
#   it reads (the kernel tells who listens; anyone could answer).
# - Files are written as the owner of the present ini. As root only where root alone can write in that folder and
#   those above it, as in Debian's /etc/pgbouncer: there nobody can put a link in the way.
# - psql runs as that owner only when the owner is who listens, else as the caller, so that no password of another
#   user's .pgpass goes to a listener that the caller has set up.
# - Of services, only those two can be named, and no word of the caller's reaches another program. client.conf is followed
#   only where root alone can write it, and as root service_command is run only when the same is true of that program.
# Without sudo, or when root calls, there is no such border: the kernel's permissions decide.

# Words are split on purpose where the words are ours, and `A && B || die` means what it says.
# shellcheck disable=SC2012,SC2015,SC2016,SC2046,SC2086,SC2094
set -uf
PATH=/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin
LC_ALL=C
IFS=' 	
'
export PATH LC_ALL
umask 077
for name in $(env | sed -n 's/^\(PG[A-Z_]*\)=.*/\1/p') ENV CDPATH TMPDIR POSIXLY_CORRECT; do
    unset "$name"
done
PGCONNECT_TIMEOUT=5 PGGSSENCMODE=disable
export PGCONNECT_TIMEOUT PGGSSENCMODE

US=$(printf '\037') # between the columns of psql's output
RS=$(printf '\036') # between its rows
LIMIT=8388608       # bytes of an upload
VERSIONS=10         # old files that are kept
PATIENCE=240        # seconds that a service may take to start or stop
CLIENT_CONF=/etc/pg_staging/client.conf

# say TEXT: each line with our name before it; what a server said may hold anything, so no control characters
say() {
    printf '%s\n' "$*" | tr -d '\000-\010\013-\037\177' | sed 's/^/staging-client: /' >&2
}

# die CODE MESSAGE
die() {
    code=$1
    shift
    say "$*"
    exit "$code"
}

private=
mine= # the name of the upload, once it is known to be the caller's
finish() {
    status=$?
    trap '' HUP INT TERM PIPE
    if [ -n "$mine" ]; then
        as_caller rm -f -- "./$mine" || say "$mine could not be removed"
    fi
    if [ -n "$private" ]; then
        rm -rf -- "$private"
    fi
    exit "$status"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

# --- who ---------------------------------------------------------------------------------------------------------

# as UID COMMAND…: runs it as that user, with the groups and the HOME of that user
as() (
    uid=$1
    shift
    [ "$uid" -ne "$self" ] || exec "$@"
    entry=$(getent passwd "$uid")
    gid=$(printf '%s\n' "$entry" | cut -d: -f4)
    home=$(printf '%s\n' "$entry" | cut -d: -f6)
    groups=--init-groups
    if [ -z "$entry" ]; then
        groups=--clear-groups gid=65534
        [ "$uid" != "$ini_uid" ] || gid=$ini_gid
    fi
    exec env HOME="${home:-/}" setpriv --reuid="$uid" --regid="$gid" "$groups" --no-new-privs -- "$@"
)

as_caller() {
    if [ "$self" -eq 0 ]; then as "$caller" "$@"; else "$@"; fi
}

# The writer's working folder is /, because the caller's may be closed to it.
as_writer() {
    (cd / && as "$writer" "$@")
}

# root_only FOLDER: whether root alone can change this folder and those above it
root_only() (
    folder=$1
    while :; do
        set -- $(stat -c '%F %u %a' -- "$folder" 2>/dev/null)
        [ "$#" -eq 3 ] && [ "$1" = directory ] && [ "$2" -eq 0 ] || return 1
        case $3 in *[2367] | *[2367]?) return 1 ;; esac
        [ "$folder" = / ] && return 0
        folder=${folder%/*}
        folder=${folder:-/}
    done
)

# root_file FILE: whether it is a file that root alone can change
root_file() (
    case $1 in /*/*) ;; *) return 1 ;; esac
    root_only "${1%/*}" || return 1
    facts=$(stat -c '%F|%u|%a' -- "$1" 2>/dev/null)
    case $facts in 'regular file|0|'* | 'regular empty file|0|'*) ;; *) return 1 ;; esac
    case ${facts##*|} in *[2367] | *[2367]?) return 1 ;; esac
)

# no_links PATH: whether no part of it is a symbolic link
no_links() (
    path=$1
    while [ -n "$path" ]; do
        [ ! -L "$path" ] || return 1
        path=${path%/*}
    done
)

# --- pgbouncer ---------------------------------------------------------------------------------------------------

# The newest of the packages first: /usr/bin/psql may be a wrapper that chooses by the user's own settings.
find_psql() {
    for folder in $(set +f && ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin 2>/dev/null | sort -Vr); do
        psql=$folder/psql
        [ -x "$psql" ] && return
    done
    psql=$(command -v psql) && return
    die 1 "there is no psql on this host: install the package postgresql-client"
}

# console COMMAND: one command on the admin console; rows to stdout, with a header
console() {
    (cd / && as "$client" timeout -s KILL 10 "$psql" -X -w -h "$host" -p "$port" -U "$admin" -d pgbouncer \
        -A -P footer=off -F "$US" -R "$RS" -c "$1")
}

# option NAME: its value in [pgbouncer] of the new file, or nothing
option() {
    awk -v option="$1" '
        /^[ \t\r\v\f]*\[/ { main = ($0 ~ /^[ \t\r\v\f]*\[pgbouncer\]/); if (main) value = "" }
        main && match($0, "^[ \t\r\v\f]*" option "[ \t]*=[ \t]*") {
            value = substr($0, RLENGTH + 1)
            sub(/[ \t\r\v\f]+$/, "", value)
        }
        END { print value }' "$private/new"
}

# addresses: where the new file says that pgbouncer listens, as hosts for psql, this machine's own first
addresses() {
    for item in $(option listen_addr | tr ',' ' '); do
        case $item in
        '*') echo "127.0.0.1 ::1" ;;
        0.0.0.0) echo 127.0.0.1 ;;
        localhost) echo "127.0.0.1 ::1" ;;
        ::) echo ::1 ;;
        ::1) echo ::1 ;;
        *) echo "$item" | grep -E '^(0|[1-9][0-9]?[0-9]?)(\.(0|[1-9][0-9]?[0-9]?)){3}$' ;;
        esac
    done
    folder=$(option unix_socket_dir)
    case $folder in
    /*) case $folder in *[!A-Za-z0-9_./@+-]*) ;; *) echo "$folder" ;; esac ;;
    '') echo "/var/run/postgresql /tmp" ;;
    esac
}

# listeners HOST: the users who listen there on our port, each once; only the kernel's word counts. It writes addresses
# in the byte order of the machine, so both orders are looked for. "Any address" proves nothing for one that may not be
# this machine's.
listeners() {
    any6=00000000000000000000000000000000
    case $1 in
    /*)
        [ -S "$1/.s.PGSQL.$port" ] && stat -c %u -- "$1/.s.PGSQL.$port"
        return
        ;;
    ::1) wanted="$any6 00000000000000000000000000000001 00000000000000000000000001000000" ;;
    *)
        any=
        case $1 in 127.*) any="00000000 $any6" ;; esac
        set -- $(printf '%s\n' "$1" | tr . ' ')
        ipv4=$(printf '%02X%02X%02X%02X' "$1" "$2" "$3" "$4")
        reverse=$(printf '%02X%02X%02X%02X' "$4" "$3" "$2" "$1")
        wanted="$any $ipv4 $reverse 00000000000000000000FFFF$ipv4 0000000000000000FFFF0000$reverse"
        ;;
    esac
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
        awk -v port="$(printf '%04X' "$port")" -v wanted=" $wanted " '
            $4 == "0A" && split($2, local, ":") == 2 && local[2] == port && index(wanted, " " local[1] " ") {
                print $8
            }' | sort -u
}

# reach: finds the first address at which pgbouncer lets us into its console: sets host, listener and client
reach() {
    [ -z "$host" ] || return 0
    reason="nothing listens on port $port"
    for host in $(addresses); do
        listener=$(listeners "$host")
        [ -n "$listener" ] || continue
        client=$self
        if [ "$self" -eq 0 ]; then
            client=$caller
            [ "$listener" != "$ini_uid" ] || client=$ini_uid
        elif [ -n "$borrowed" ] && [ "$listener" != "$self" ]; then
            export PGPASSFILE=/dev/null
        fi
        if reason=$(console 'SHOW VERSION' 2>&1 >/dev/null); then return 0; fi
        reason="pgbouncer on port $port does not let $admin in: $reason"
    done
    host=
    return 1
}

# conffile: the path that pgbouncer says it reads
conffile() {
    console 'SHOW CONFIG' 2>/dev/null | awk -v RS="$RS" -v FS="$US" '
        NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
        ("key" in column) && ("value" in column) && $column["key"] == "conffile" { print $column["value"] }'
}

# reload: 0, or 4 when pgbouncer says no, or 5 when it does not answer; sets reason
reload() {
    reason=$(console RELOAD 2>&1 >/dev/null)
    case $? in
    0) return 0 ;;
    1) reason="RELOAD failed: $reason" && return 4 ;;
    *) reason="pgbouncer did not answer RELOAD: $reason" && return 5 ;;
    esac
}

# confirm: waits until SHOW DATABASES says what the new file says; 0, 4 or 5 as above. It has to be looked at: up to 1.24,
# RELOAD answers OK to a file that pgbouncer cannot read, and the lines before the bad one are in effect.
confirm() {
    tries=0
    while :; do
        if ! reason=$(console 'SHOW DATABASES' 2>&1 >"$private/shown"); then
            reason="pgbouncer did not answer SHOW DATABASES: $reason"
            return 5
        fi
        reason=$(awk -v RS="$RS" -v FS="$US" "$COMPARE" file=1 "$private/wanted" file=2 "$private/shown") && return 0
        tries=$((tries + 1))
        [ "$tries" -lt 10 ] || return 4
        sleep 0.2
    done
}

# Reads the wanted rows (E name database host port, R name) and then the shown ones; prints what differs.
COMPARE='
    function visible(text) { gsub(/[^ -~]/, "?", text); return text }
    function differs(text) { print visible(text); return bad = 1 }
    { sub(/\n$/, "", $NF) }
    file == 1 && $1 == "E" { database[$2] = $3; host[$2] = $4; port[$2] = $5 }
    file == 1 && $1 == "R" { removed[$2] }
    file == 2 && FNR == 1 {
        for (i = 1; i <= NF; i++) column[$i] = i
        if (!("name" in column && "database" in column && "host" in column && "port" in column))
            lacking = differs("SHOW DATABASES does not show name, database, host and port")
    }
    file == 2 && FNR > 1 && !lacking {
        name = $column["name"]
        if (name in removed) differs("entry " name " is still there")
        if (!(name in database)) next
        seen[name]
        is = "dbname=" $column["database"] " host=" $column["host"] " port=" $column["port"]
        should = "dbname=" database[name] " host=" host[name] " port=" port[name]
        if (is != should) differs("entry " name " should have " should " and has " is)
    }
    END {
        for (name in database) if (!lacking && !(name in seen)) differs("entry " name " is missing")
        exit bad
    }'

# --- the two files -----------------------------------------------------------------------------------------------

# Reads the present file and the new one, [databases] by the rules of pgbouncer, and prints the wanted rows.
# Status 2: more than [databases] differs, or a change that could not be confirmed; 4: a line that pgbouncer could not read.
#
# A change can be confirmed when SHOW DATABASES must show it: a new alias, or one that leads elsewhere. An entry that leads
# where it did, with other keywords changed, would look the same whether pgbouncer has read it or stopped there.
JUDGE='
    function visible(text) { gsub(/[^ -~]/, "?", text); return text }
    function refuse(code, text) { print visible(text) > "/dev/stderr"; status = code; exit code }
    function keep(text) { kept[file, ++count[file]] = text }
    function unreadable(text) {
        if (file == 1) keep($0)
        else refuse(4, "line " FNR " cannot be read by pgbouncer: " text)
        return 0
    }
    # pairs VALUE: splits a connection string; sets dbname, host, port and others
    function pairs(value,    key, word, i, c) {
        dbname = name; host = ""; port = 5432; others = ""
        for (;;) {
            sub(/^ +/, "", value)
            if (value == "") return 1
            match(value, /^[^= ]*/)
            key = substr(value, 1, RLENGTH)
            value = substr(value, RLENGTH + 1)
            sub(/^ +/, "", value)
            if (key == "" || substr(value, 1, 1) != "=") return unreadable("a key without value")
            value = substr(value, 2)
            sub(/^ +/, "", value)
            if (substr(value, 1, 1) == Q) {
                word = ""
                for (i = 2; ; i++) {
                    c = substr(value, i, 1)
                    if (c == "") return unreadable("a quote that is not closed")
                    if (c == Q && substr(value, ++i, 1) != Q) break
                    word = word c
                }
                value = substr(value, i + 1)
            } else {
                match(value, /^[^ ]*/)
                word = substr(value, 1, RLENGTH)
                value = substr(value, RLENGTH + 2)
            }
            if (word == "") return unreadable("a key without value")
            if (key == "dbname") dbname = word
            else if (key == "host") host = word
            else if (key == "port") port = int(word)
            else others = others key US word US
        }
    }
    function entry(text,    line, n) {
        line = text
        if (substr(text, 1, 1) == Q) {
            n = index(substr(text, 2), Q)
            if (n < 2) return unreadable("a quoted name that is not closed")
            name = substr(text, 2, n - 1)
            text = substr(text, n + 2)
        } else {
            match(text, /^[A-Za-z0-9_.*-]*/)
            name = substr(text, 1, RLENGTH)
            text = substr(text, RLENGTH + 1)
        }
        if (!sub(/^[ \t]*=[ \t]*/, "", text)) return unreadable("a name without =")
        if (name == "*") { fallback = 1; keep(line); return }
        sub(/[ \t\r\v\f]+$/, "", text)
        if (!pairs(text)) return
        target = dbname US host US port
        if (file == 1) {
            old[name] = target
            known[name, text]; known[name, "others", others]
        } else {
            new[name] = target
            if (!((name, text) in known) && !((name, "others", others) in known)) fresh[name] = fresh[name] US text
            last[name] = text
        }
    }
    function read(text,    n) {
        for (;;) {
            sub(/^[ \t\r\v\f]+/, "", text)
            if (substr(text, 1, 1) == "[" && (n = index(text, "]"))) {
                section = substr(text, 2, n - 2)
                keep(substr(text, 1, n))
                text = substr(text, n + 1)
            } else break
        }
        if (text == "") return
        if (text ~ /^%include[ \t]/) {
            # The included file may leave another section open.
            if (section == "databases") section = "unknown"
            included = 1
            keep(text)
        } else if (section != "databases" || text ~ /^\[/) keep(text)
        else if (text !~ /^[;#]/) entry(text)
    }
    BEGIN { Q = "\047"; US = "\037" }
    FNR == 1 { section = ""; included = 0; fallback = 0 }
    { read($0) }
    END {
        if (status) exit status
        for (i = 1; i <= count[1] || i <= count[2]; i++)
            if (kept[1, i] != kept[2, i])
                refuse(2, "only entries of [databases] may change, and the new file has something else: " \
                    (i > count[2] ? "a line less" : kept[2, i]))
        for (name in fresh)
            if (fresh[name] != US last[name] || ((name in old) && old[name] == new[name]))
                refuse(2, "entry " name ": a change beside dbname, host and port cannot be confirmed")
        for (name in new) {
            split(new[name], part, US)
            printf "E%s%s%s%s%s%s%s%s\036", US, name, US, part[1], US, part[2], US, part[3]
        }
        # A fallback, or an included file, may bring a name back.
        if (!fallback && !included)
            for (name in old) if (!(name in new)) printf "R%s%s\036", US, name
    }'

sha256() {
    sha256sum | cut -d' ' -f1
}

present_sha256() {
    as_writer sha256sum -- "$conf" | cut -d' ' -f1
}

# versions: the old files, the oldest first
versions() {
    as_writer sh -c 'for file in "$1".pg_staging.[0-9]*Z.[0-9][0-9]; do [ -f "$file" ] && echo "$file"; done' sh "$conf"
}

# Temporary file, synced, with the owner and mode of the old one.
WRITE='
    set -eCu
    umask 077
    rm -f -- "$1"
    cat >"$1"
    chown "$2" "$1"
    chmod "$3" "$1"
    [ "$(stat -c "%u:%g %a" -- "$1")" = "$2 $3" ]
    sync "$1"'

# The old file gets a second name, which a crash leaves behind as a version, and then the new one takes its place.
# What got the name is looked at once more, because people who edit by hand do not ask for our lock: status 3.
REPLACE='
    set -eu
    ln -- "$1" "$2" 2>/dev/null || cp -p -- "$1" "$2"
    if [ "$(sha256sum <"$2" | cut -d" " -f1)" != "$4" ]; then
        rm -f -- "$2" "$3"
        exit 3
    fi
    mv -fT -- "$3" "$1"
    sync "${1%/*}/"'

# install_new: puts the new file in place; sets version to the old one
install_new() {
    stamp=$(date -u +%Y%m%dT%H%M%SZ)
    n=0
    while version=$(printf '%s.pg_staging.%s.%02d' "$conf" "$stamp" "$n") && as_writer test -e "$version"; do
        n=$((n + 1))
    done
    as_writer sh -c "$WRITE" sh "$conf.pg_staging.new" "$ini_uid:$ini_gid" "$ini_mode" <"$private/new" ||
        die 1 "$conf.pg_staging.new could not be written with the owner and mode of the old file"
    as_writer sh -c "$REPLACE" sh "$conf" "$version" "$conf.pg_staging.new" "$base"
    case $? in
    0) return ;;
    3) die 3 "$conf has changed at this very moment" ;;
    esac
    say "$conf could not be replaced"
    [ "$(present_sha256)" = "$base" ] || put_back
    exit 1
}

# put_back: the file that was there before takes its place again, and pgbouncer is told so
put_back() {
    if [ -z "$version" ]; then
        say "the version before is no longer among the old files: $conf stays as it is"
        return
    fi
    present=$(present_sha256)
    if [ -n "$present" ] && [ "$present" != "$new" ]; then
        say "somebody else has changed $conf meanwhile, and it stays as it is; the version before is $version"
        return
    fi
    as_writer sh -c 'mv -fT -- "$2" "$1" && sync "${1%/*}/"' sh "$conf" "$version" ||
        die 1 "$conf could not be put back: the old file is $version"
    say "$conf is the old one again"
    # pgbouncer makes clients wait 15 seconds when one alias is repointed twice within half a second.
    sleep 1
    reload || say "pgbouncer was not told: $reason"
}

prune() {
    extra=$(($(versions | wc -l) - VERSIONS))
    [ "$extra" -gt 0 ] || return 0
    versions | head -n "$extra" | while read -r file; do
        as_writer rm -f -- "$file"
    done
}

# --- the steps ---------------------------------------------------------------------------------------------------

usage() {
    say "usage: staging-client.sh <pgbouncer.xxxx.ini> <port>"
    die 2 "or: staging-client.sh service <start|stop|status> <pgbouncer|postgresql>"
}

check_arguments() {
    [ "$#" -eq 2 ] || usage
    upload=$1
    port=$2
    middle=${upload#pgbouncer.}
    case $upload in pgbouncer.*.ini) middle=${middle%.ini} ;; *) middle= ;; esac
    case $middle in
    '' | *[!A-Za-z0-9]*) die 2 "the file must be called pgbouncer.xxxx.ini, xxxx being letters and digits" ;;
    esac
    case $port in
    '' | *[!0-9]* | 0* | ??????*) die 2 "the port must be a number from 1 to 65535" ;;
    esac
    [ "$port" -le 65535 ] || die 2 "the port must be a number from 1 to 65535"
}

identify_caller() {
    self=$(id -u)
    caller=$self
    ini_uid="" ini_gid=""
    case ${SUDO_UID:-} in
    '') ;;
    *[!0-9]* | ???????????*) die 2 "SUDO_UID is not a number" ;;
    *) caller=$SUDO_UID ;;
    esac
    borrowed=
    [ "$caller" -eq "$self" ] || borrowed=yes
}

# Private folders of runs that were killed: their process, whose id is in the name, is gone, or waits for somebody to ask
# how it ended. What they started has let go of the lock by now.
sweep() {
    for folder in $(set +f && echo /tmp/pg_staging_client.*.*); do
        [ -d "$folder" ] && [ ! -L "$folder" ] && [ "$(stat -c %u -- "$folder" 2>/dev/null)" = "$self" ] || continue
        pid=${folder#/tmp/pg_staging_client.}
        case $(sed -n 's/^State:[[:space:]]*//p' "/proc/${pid%.*}/status" 2>/dev/null) in
        '' | [ZX]*) rm -rf -- "$folder" ;;
        esac
    done
}

make_private_folder() {
    private=$(mktemp -d "/tmp/pg_staging_client.$$.XXXXXXXXXX") || die 1 "no private folder can be made in /tmp"
}

take_upload() {
    facts=$(as_caller stat -c '%u|%h|%s|%F' -- "./$upload" 2>/dev/null) || die 2 "$upload is not in this folder"
    case $facts in
    "$caller|"*) ;;
    *) die 2 "$upload is not owned by the calling user" ;;
    esac
    case $facts in
    "$caller|1|"*"|regular file" | "$caller|1|"*"|regular empty file") ;;
    *"|regular file") die 2 "$upload has another name somewhere: it must have one link only" ;;
    *) die 2 "$upload is not a regular file" ;;
    esac
    mine=$upload
    size=${facts#*|*|}
    [ "${size%%|*}" -lt "$LIMIT" ] || die 2 "$upload is larger than 8 MiB"
    as_caller timeout -s KILL 10 head -c "$LIMIT" -- "./$upload" >"$private/upload" || die 2 "$upload cannot be read"
    [ "$(wc -c <"$private/upload")" -eq "${size%%|*}" ] || die 2 "$upload changes while it is read"
    tr -d '\000' <"$private/upload" | cmp -s - "$private/upload" || die 2 "$upload holds a NUL byte"
}

# sets base, conf and admin from the first line, and $private/new to the rest
read_header() {
    header=$(head -n 1 "$private/upload" | head -c 1000)
    wrong="the first line of $upload is not: ; pg_staging 1 base=<sha256> conf=<path> user=<name>"
    case $header in *[!A-Za-z0-9_./@+\;\ =-]*) die 2 "$wrong" ;; esac
    set -- $header
    [ "$#" -eq 6 ] && [ "$header" = "; pg_staging 1 base=${4#base=} conf=${5#conf=} user=${6#user=}" ] || die 2 "$wrong"
    base=${4#base=} conf=${5#conf=} admin=${6#user=}
    case $base in *[!0-9a-f]*) die 2 "$wrong" ;; esac
    [ "${#base}" -eq 64 ] || die 2 "$wrong"
    case $admin in '' | -* | *[!A-Za-z0-9_.@+-]*) die 2 "$wrong" ;; esac
    case $conf in
    /*) ;;
    *) die 2 "conf is not an absolute path" ;;
    esac
    case $conf/ in
    *[!A-Za-z0-9_./@+-]* | *//* | */./* | */../*) die 2 "conf is not a path that is taken: $conf" ;;
    esac
    [ "${#header}" -lt 1000 ] || die 2 "$wrong"
    tail -n +2 "$private/upload" >"$private/new"
    for section in databases pgbouncer; do
        grep -q "^[[:space:]]*\[$section\]" "$private/new" || die 2 "the new file has no line [$section]"
    done
    new=$(sha256 <"$private/new")
}

# sets ini_uid, ini_gid and ini_mode; the caller learns nothing of files that are not for pgbouncer
look_at_present() {
    if [ -n "$borrowed" ]; then
        refused="$conf is not a file that this host lets you change: list it in /etc/pg_staging/client.conf"
    else
        refused="$conf is not a regular file"
    fi
    [ -f "$conf" ] && [ ! -L "$conf" ] || die 2 "$refused"
    set -- $(stat -c '%u %g %a' -- "$conf")
    [ "$#" -eq 3 ] || die 1 "$conf cannot be looked at"
    ini_uid=$1 ini_gid=$2 ini_mode=$3
}

listed() {
    root_file "$CLIENT_CONF" && grep -Fqx -e "pgbouncer_conf=$conf" "$CLIENT_CONF"
}

check_permission() {
    [ -n "$borrowed" ] || return 0
    case $conf in /etc/pgbouncer/*) no_links "$conf" && return 0 ;; esac
    listed && return 0
    if [ "$ini_uid" -ne 0 ] && no_links "$conf" && reach && [ "$listener" = "$ini_uid" ] &&
        [ "$(conffile)" = "$conf" ]; then
        return 0
    fi
    die 2 "$refused"
}

# sets writer: the owner of the ini, or root where only root can write
choose_writer() {
    folder=${conf%/*}
    folder=${folder:-/}
    writer=$self
    if [ "$self" -ne 0 ]; then
        [ "$ini_uid" -eq "$self" ] || die 1 "$conf belongs to another user, which could not be kept: use sudo"
    elif [ "$ini_uid" -ne 0 ] && (cd / && as "$ini_uid" sh -c '[ -w "$1" ] && [ -x "$1" ]' sh "$folder"); then
        writer=$ini_uid
    elif [ -n "$borrowed" ] && ! root_only "$folder"; then
        die 1 "$folder can be changed by others than root, and the owner of $conf cannot write there"
    fi
}

# One run at a time for one ini. The lock file is made by the writer, and root opens it only for reading.
take_lock() {
    lock=$conf.pg_staging.lock
    as_writer sh -c 'umask 077; [ -e "$1" ] || : >>"$1"' sh "$lock" 2>/dev/null
    [ -f "$lock" ] && [ ! -L "$lock" ] && [ -r "$lock" ] || die 1 "the lock file $lock cannot be made or read"
    exec 9<"$lock"
    flock -w 30 9 || die 6 "another run has held $lock for more than 30 seconds"
    # Whoever takes the upload back has given this run up, and counts on nothing happening any more.
    as_caller cmp -s -- "./$upload" - <"$private/upload" || die 1 "$upload was taken back"
    looked=$ini_uid
    look_at_present
    [ "$looked" = "$ini_uid" ] || die 1 "$conf has changed its owner meanwhile"
    as_writer rm -f -- "$conf.pg_staging.new"
}

# The same file again, after a lost answer or a kill: nothing is installed, but all is confirmed. The version that
# the first run left tells what was there before.
find_version() {
    version=
    for file in $(versions); do
        [ "$(as_writer sha256sum -- "$file" | cut -d' ' -f1)" != "$base" ] || version=$file
    done
}

# setting NAME: its value in client.conf, or nothing
setting() {
    sed -n "s/^$1=//p" "$CLIENT_CONF" 2>/dev/null | head -n 1
}

# sets unit and, where the administrator has a program of his own, manager
read_client_conf() {
    unit=$service manager=
    [ -e "$CLIENT_CONF" ] || [ -L "$CLIENT_CONF" ] || return 0
    root_file "$CLIENT_CONF" || die 2 "$CLIENT_CONF can be changed by others than root, and is not followed"
    [ -r "$CLIENT_CONF" ] || die 2 "$CLIENT_CONF cannot be read"
    unit=$(setting "${service}_service")
    unit=${unit:-$service}
    case $unit in
    -* | *[!A-Za-z0-9_.:@\\-]*) die 2 "$CLIENT_CONF: '$unit' is not the name of a service" ;;
    esac
    manager=$(setting service_command)
    case $manager in
    '') return ;;
    /*) ;;
    *) die 2 "$CLIENT_CONF: service_command is not an absolute path" ;;
    esac
    [ -f "$manager" ] && [ -x "$manager" ] || die 2 "$CLIENT_CONF: there is no program $manager"
    [ "$self" -ne 0 ] || root_file "$manager" ||
        die 2 "$CLIENT_CONF: $manager, or a folder above it, can be changed by others than root, or is a link"
}

# sets manager to what manages services here, and stopped to the codes with which it says that one does not run
find_manager() {
    stopped=' 1 2 3 '
    [ -z "$manager" ] || return 0
    if [ -d /run/systemd/system ]; then
        # With 1 it ends when it could not look.
        manager=systemctl stopped=' 3 '
    else
        [ -e "/etc/init.d/$unit" ] || die 1 "there is no service $unit on this host"
        manager=service
    fi
}

# by_manager ACTION: has it done; what is said goes to a file, since what is started may keep its output open
by_manager() (
    case $manager in
    systemctl) set -- systemctl --no-pager --no-ask-password "$1" "$unit" ;;
    service) set -- service "$unit" "$1" ;;
    *) set -- "$manager" "$1" "$unit" ;;
    esac
    cd / && exec env -i PATH="$PATH" LC_ALL=C timeout -k 10 "$PATIENCE" "$@" </dev/null >"$private/said" 2>&1
)

# give_up WHAT: with the last that was said
give_up() {
    say "$1 (exit code $ended)"
    [ ! -s "$private/said" ] || say "$(tail -n 20 "$private/said")"
    exit 1
}

# manage_service ACTION SERVICE
manage_service() {
    [ "$#" -eq 2 ] || usage
    case $1 in start | stop | status) action=$1 ;; *) die 2 "the action must be start, stop or status" ;; esac
    case $2 in pgbouncer | postgresql) service=$2 ;; *) die 2 "the service must be pgbouncer or postgresql" ;; esac
    identify_caller
    read_client_conf
    find_manager
    make_private_folder
    by_manager "$action"
    ended=$?
    sweep
    case $action:$ended in
    status:0) printf 'pg_staging: %s is running\n' "$service" ;;
    status:*)
        case $stopped in *" $ended "*) ;; *) give_up "it cannot be told whether $unit runs" ;; esac
        printf 'pg_staging: %s is stopped\n' "$service"
        ;;
    *:0) printf 'pg_staging: %s %s done\n' "$service" "$action" ;;
    *:124 | *:137) give_up "$unit did not $action within $PATIENCE s" ;;
    *) give_up "$unit could not $action" ;;
    esac
}

# fail CODE: says why and puts the old file back
fail() {
    say "$reason"
    put_back
    exit "$1"
}

main() {
    if [ "${1-}" = service ]; then
        shift
        manage_service "$@"
        return
    fi
    check_arguments "$@"
    identify_caller
    host='' version=''
    make_private_folder
    take_upload
    read_header
    look_at_present
    find_psql
    check_permission
    choose_writer
    take_lock
    sweep

    present=$(present_sha256)
    if [ "$present" != "$new" ] && [ "$present" != "$base" ]; then
        die 3 "$conf has changed since it was read: its sha256 is $present, and the new file is based on $base"
    fi
    [ "$present" != "$new" ] || find_version
    as_writer cat -- "${version:-$conf}" >"$private/old" || die 1 "${version:-$conf} cannot be read"
    awk "$JUDGE" file=1 "$private/old" file=2 "$private/new" >"$private/wanted" 2>"$private/said"
    judged=$?
    if [ "$judged" -ne 0 ]; then
        say "$(cat "$private/said")"
        case $judged in 2 | 4) exit "$judged" ;; *) exit 1 ;; esac
    fi

    # From here to the verdict no signal may leave the new file unconfirmed; every wait below has its limit.
    trap '' HUP INT TERM PIPE
    if [ "$present" = "$new" ]; then
        reach || fail 5
    else
        reach || die 5 "$reason"
        install_new
    fi
    reload || fail "$?"
    confirm || fail "$?"
    prune
    printf 'pg_staging: installed %s sha256=%s\n' "$conf" "$new"
}

main "$@"
