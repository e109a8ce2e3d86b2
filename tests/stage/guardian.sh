#!/bin/sh
# Ends a stage when its owner is gone: every server it was told of, what they started, whoever still stands in the
# stage's folder, and then the folder.
#
# usage: guardian.sh FOLDER <commands
#   guard PID START SIGNAL   end this process with that signal; START is field 22 of /proc/PID/stat
#   forget PID               it was ended in an orderly way
# The owner holds the other end of stdin. However the owner ends, the input ends, and then the work begins.

trap '' HUP INT QUIT TERM
cd / || exit 1
folder=$1
guarded=''
adopted=''

while read -r verb pid start signal; do
    case $verb in
    guard) guarded="$guarded $pid:$start:$signal" ;;
    forget)
        kept=''
        for entry in $guarded; do
            case $entry in "$pid":*) ;; *) kept="$kept $entry" ;; esac
        done
        guarded=$kept
        ;;
    esac
done

# Sets $parent and $born for process $1; fails when it is gone or waits only for its parent to take note.
look_at() {
    stat=''
    read -r stat <"/proc/$1/stat" || return 1
    # The name in parentheses may hold spaces; what follows the last one is numbers.
    # shellcheck disable=SC2086
    set -- ${stat##*) }
    parent=$2
    shift 19 2>/dev/null || return 1
    born=$1
    case ${stat##*) } in Z* | X*) return 1 ;; esac
}

# Tells whether the process of entry PID:START:… still lives; a later process of the same number is another one.
lives() {
    pid=${1%%:*}
    start=${1#*:}
    look_at "$pid" && [ "$born" = "${start%%:*}" ]
}

# Adds process $1 to the ones to be ended.
adopt() {
    case " $guarded $adopted" in *" $1:"*) return 1 ;; esac
    look_at "$1" && adopted="$adopted $1:$born:KILL"
}

# Adopts who stands in the folder and every descendant, until a look round brings nothing new.
adopt_relatives() {
    # What find prints here are numbers.
    # shellcheck disable=SC2044
    for link in $(find /proc -mindepth 2 -maxdepth 2 -name cwd -lname "$folder*"); do
        link=${link#/proc/}
        adopt "${link%/cwd}"
    done
    grown=yes
    while [ "$grown" ]; do
        grown=''
        for process in /proc/[0-9]*; do
            process=${process#/proc/}
            look_at "$process" || continue
            case " $guarded $adopted" in *" $parent:"*) adopt "$process" && grown=yes ;; esac
        done
    done
}

# Waits until none of the entries lives, at most $1 times 20 ms.
wait_for_end_of() {
    rounds=$1
    shift
    while [ "$rounds" -gt 0 ]; do
        living=''
        for entry in "$@"; do lives "$entry" && living=yes && break; done
        [ "$living" ] || return 0
        sleep 0.02
        rounds=$((rounds - 1))
    done
    return 1
}

adopt_relatives
for entry in $guarded; do
    # CONT, because a process that was stopped gets no other signal than KILL.
    lives "$entry" && kill -s "${entry##*:}" "$pid" && kill -s CONT "$pid"
done
# shellcheck disable=SC2086
wait_for_end_of 300 $guarded

# New processes may have been started meanwhile: look round until nobody is left.
rounds_left=10
while [ "$rounds_left" -gt 0 ]; do
    rounds_left=$((rounds_left - 1))
    adopt_relatives
    left=''
    for entry in $guarded $adopted; do
        lives "$entry" && left=yes && kill -s KILL "$pid"
    done
    [ "$left" ] || break
    # shellcheck disable=SC2086
    wait_for_end_of 50 $guarded $adopted
done
rm -rf -- "$folder"
