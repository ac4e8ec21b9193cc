#!/usr/bin/env bash
# Run the tests of the given packages under the race detector, those that exist.
# The detector needs a C compiler; without one that is said, and in CI it fails.
set -u -o pipefail
cd "$(dirname "$0")/.."
if ! command -v "${CC:-gcc}" >/dev/null; then
	echo "race: NOT RUN: no C compiler (install gcc and libc6-dev)"
	[ "${CI:-}" != true ]
	exit
fi
pkgs=()
for p in "$@"; do
	[ -d "${p%/...}" ] && pkgs+=("$p")
done
CGO_ENABLED=1 tools/test.sh -race -short "${pkgs[@]}"
