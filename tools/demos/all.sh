#!/usr/bin/env bash
# Take the snapshots of all demos anew. As root; nothing of it is left behind.
set -eu -o pipefail
cd "$(dirname "$0")"
for f in *.sh; do
	case $f in
	all.sh | lib.sh) ;;
	*) bash "$f" ;;
	esac
done
