#!/usr/bin/env bash
# Generated files must be what their generators print now. Nothing to do where
# nothing is generated.
set -eu -o pipefail
cd "$(dirname "$0")/.."
if ! git grep -q '^//go:generate ' -- '*.go'; then
	echo "generate: there are no generators"
	exit 0
fi
state() { git status --porcelain; git diff; }
before=$(state)
"${GO:-go}" generate ./...
[ "$before" = "$(state)" ] || {
	echo "generate: these files were not as their generators print them:"
	git diff --stat
	exit 1
}
