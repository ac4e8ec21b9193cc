#!/usr/bin/env bash
# Install the Debian packages whose tools the tests ask, where they are missing and
# this is root; else say what is missing. In CI a missing tool is a failure.
set -eu -o pipefail

packages=()
need() { # need COMMAND PACKAGE
	command -v "$1" >/dev/null || packages+=("$2")
}
need git git
need gcc gcc
need iptables iptables
need iptables-legacy iptables
need ipset ipset
need conntrack conntrack
need nft nftables
need ip iproute2
need bridge iproute2
need ss iproute2
need sysctl procps
need unshare util-linux
need perl perl-base
need awk mawk
need linux.uml user-mode-linux
need ipvsadm ipvsadm
need jq jq
# gcc alone brings no C headers, which the race detector's runtime needs.
[ -e /usr/include/stdlib.h ] || packages+=(libc6-dev)
[ "${#packages[@]}" -gt 0 ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
	echo "MISSING, and can't be installed here (not root, or no apt-get):" \
		"the Debian packages ${packages[*]}. Tests that need them are skipped." >&2
	[ "${CI:-}" != true ]
	exit
fi
echo "installing ${packages[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get -q update
apt-get -q install -y --no-install-recommends "${packages[@]}"
