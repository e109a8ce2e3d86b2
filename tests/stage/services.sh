#!/bin/sh
# Starts and stops the servers of a stage, as an administrator's own program would.
#
# usage: services.sh <start|stop|status> <stage-bouncer|stage@postgres>
# Ends as init scripts do: status with 3 when the server does not run.
echo "$1 $2" >>'@LOG@'

as_account() {
    setpriv --reuid='@ACCOUNT@' --regid="$(id -g '@ACCOUNT@')" --init-groups -- "$@"
}

# Whether pgbouncer runs; sets pid.
bouncer_runs() {
    pid=$(cat '@BOUNCER@/pgbouncer.pid' 2>/dev/null) && kill -0 "$pid" 2>/dev/null
}

case $2:$1 in
stage-bouncer:status) bouncer_runs || exit 3 ;;
stage-bouncer:start) bouncer_runs || { cd '@BOUNCER@' && as_account pgbouncer -d '@BOUNCER@/pgbouncer.ini'; } ;;
stage-bouncer:stop) ! bouncer_runs || kill -TERM "$pid" ;;
stage@postgres:status) as_account '@BIN@/pg_ctl' -D '@DATA@' status ;;
stage@postgres:start)
    as_account '@BIN@/pg_ctl' -D '@DATA@' status ||
        as_account '@BIN@/pg_ctl' -D '@DATA@' -l '@DATA@/../service.log' -o '-p @PORT@' -W start
    ;;
stage@postgres:stop)
    ! as_account '@BIN@/pg_ctl' -D '@DATA@' status || as_account '@BIN@/pg_ctl' -D '@DATA@' -m fast stop
    ;;
*)
    echo "there is no service $2 that could $1"
    exit 5
    ;;
esac
