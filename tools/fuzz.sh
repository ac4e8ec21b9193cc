#!/usr/bin/env bash
# Run every fuzz target of the module for the given time.
set -eu -o pipefail
cd "$(dirname "$0")/.."
time=${1:-5s}
go=${GO:-go}
ran=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# The fuzzer sometimes reports its own time limit as a failure without an input
# to show: then it is asked again.
fuzz() {
	for _ in 1 2 3; do
		"$go" test -run '^$' -fuzz "^$1\$" -fuzztime "$time" -parallel 2 "$2" >"$log" 2>&1 && return
		grep -q 'context deadline exceeded' "$log" || return
		! grep -q 'Failing input' "$log" || return
	done
	return 1
}

while read -r pkg dir; do
	while read -r target; do
		echo "fuzz $target in $pkg for $time"
		fuzz "$target" "$pkg" || { cat "$log"; exit 1; }
		ran=$((ran + 1))
	done < <(cat "$dir"/*_test.go 2>/dev/null | sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' | sort)
done < <("$go" list -f '{{.ImportPath}} {{.Dir}}' ./...)
echo "fuzz: $ran targets ran"
