#!/usr/bin/env bash
# Run go test with the given arguments; show one line a package, what was skipped
# and why, and all that a failing package printed. The last line counts the tests.
set -u -o pipefail
cd "$(dirname "$0")/.."
exec 2>&1
"${GO:-go}" test -v "$@" | awk '
	function flush(all,  i) {
		if (all) for (i = 1; i <= n; i++) print lines[i]
		else for (i = 1; i <= skips; i++) print skip[i]
		n = skips = 0; said = ""
	}
	{ lines[++n] = $0 }
	/packets agreed with the kernel$/ { agreed = $0; sub(/^.*go:[0-9]+: /, "", agreed) }
	/^=== RUN/ { said = ""; next }
	/^    [^ ]*\.go:[0-9]+: / { said = $0; sub(/^ +/, "", said); next }
	/^--- PASS: (Test|Fuzz|Example)/ { passed++; next }
	/^--- FAIL: (Test|Fuzz|Example)/ { failed++; next }
	/^--- SKIP: (Test|Fuzz|Example)/ { skipped++; skip[++skips] = "\tskipped: " $3 ": " said; next }
	/^ +--- PASS: / { cases++; next }
	/^ok  \t/ { print; flush(0); fflush(); next }
	/^\?   \t/ { n--; quiet++; next }
	/^FAIL\t/ { bad++; flush(1); fflush(); next }
	END {
		if (n) flush(1)
		if (quiet) printf "%d packages have no tests\n", quiet
		if (bad && !failed) failed = bad
		if (agreed) print agreed
		printf "cases within the tests: %d\n", cases
		printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
	}'
