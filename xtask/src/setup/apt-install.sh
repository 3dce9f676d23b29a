# Installs the packages given, and has none of their services started: this is a developer's
# machine, not their server. invoke-rc.d and systemd ask policy-rc.d; 101 means "do not".
set -eu
policy=/usr/sbin/policy-rc.d
kept=$policy.before-weir

restore() {
    rm -f "$policy"
    if [ -e "$kept" ]; then mv "$kept" "$policy"; fi
}
# An earlier run that was killed may have left $kept: then $policy is ours.
if [ -e "$policy" ] && [ ! -e "$kept" ]; then mv "$policy" "$kept"; fi
trap restore EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"

# A machine's package lists are often as old as its image, and name packages that are gone or
# superseded. Without a network the old lists must do.
apt-get update --quiet || true
DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends "$@"
