package snapshot

import "strings"

// Script returns the POSIX shell script that takes a snapshot by hand, on a machine
// without hookpath: sh script DIRECTORY.
func Script() string {
	var b strings.Builder
	b.WriteString(scriptHead)
	for _, c := range commands {
		cond := ""
		if len(c.needs) > 0 {
			var tests []string
			for _, p := range c.needs {
				tests = append(tests, "[ -e "+p+" ]")
			}
			cond = "{ " + strings.Join(tests, " || ") + "; } && "
		}
		b.WriteString(cond + "take " + c.file + " " + quoteAll(c.args) + "\n")
	}
	b.WriteString(scriptTail)
	return b.String()
}

// quoteAll quotes words for the shell where that is needed.
func quoteAll(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = w
		if strings.ContainsAny(w, "\\^$*?[]{}()'\"|&;<> ") {
			out[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(out, " ")
}

const scriptHead = `#!/bin/sh
# Takes a snapshot of this network namespace for hookpath. It only asks: nothing is changed and
# no kernel module is loaded. Usage: sh snapshot.sh DIRECTORY (run as root)
set -u
dir=${1:?usage: sh snapshot.sh DIRECTORY}
mkdir -p "$dir/foreign" || exit 1

# take FILE COMMAND...: the output goes to FILE, or the message of a failed tool to FILE.err.
take() {
	f=$dir/$1
	shift
	command -v "$1" >/dev/null 2>&1 || return 0
	if "$@" >"$f.part" 2>"$f.err" || { [ "$1" = sysctl ] && [ -s "$f.part" ]; }; then
		mv "$f.part" "$f"
		rm -f "$f.err"
		case $f in */foreign/*) [ -s "$f" ] || rm -f "$f" ;; esac
	else
		rm -f "$f.part"
	fi
	return 0
}

`

const scriptTail = `
for kind in recent hashlimit; do
	from=/proc/net/xt_recent
	[ $kind = hashlimit ] && from=/proc/net/ipt_hashlimit
	[ -d $from ] || continue
	mkdir -p "$dir/xt/$kind"
	for f in "$from"/*; do
		[ -f "$f" ] && cat "$f" >"$dir/xt/$kind/${f##*/}"
	done
done

# Some old versions of date can't print fractions of a second: whole ones will do.
printf '{"host":"%s","kernel":"%s","time":"%s"}\n' "$(hostname)" "$(uname -r)" \
	"$(date -u +%Y-%m-%dT%H:%M:%SZ)" >"$dir/meta.json"
rmdir "$dir/foreign" 2>/dev/null
exit 0
`
