# Runs sshd as the account, with one rule of sudo that only it and what it starts can see.
#
# usage: unshare --mount … sh -c THIS sh RULE ACCOUNT SSHD ARGUMENTS…
rule=$1
account=$2
shift 2
umask 077
mount -t tmpfs -o mode=755 tmpfs /etc/sudoers.d || exit 1
printf '%s\n' "$rule" >/etc/sudoers.d/stage || exit 1
umask 022
exec setpriv --reuid="$account" --regid="$(id -g "$account")" --init-groups -- "$@"
