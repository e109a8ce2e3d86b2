#!/bin/sh
# What sshd runs instead of what the client asked for: the same, but in the scratch login folder and not in the home
# that the account has in /etc/passwd.
HOME=@FOLDER@/login
export HOME
cd "$HOME" || exit 255
exec /bin/sh -c "${SSH_ORIGINAL_COMMAND:-exec /bin/sh}"
