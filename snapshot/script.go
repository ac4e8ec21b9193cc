package snapshot

import "strings"

// Script returns the POSIX shell script that takes a snapshot by hand, on a machine
// without hookpath: sh script DIRECTORY.
func Script() string {
	var b strings.Builder
	b.WriteString(scriptHead)
	for _, c := range commands {
		if c.path != "" {
			b.WriteString("[ -e " + c.path + " ] && ")
		}
		if len(c.modules) > 0 {
			b.WriteString("have " + strings.Join(c.modules, " ") + " && ")
		}
		args := c.args
		if c.env != "" {
			args = append([]string{"env", c.env}, args...)
		}
		b.WriteString("take " + c.file + " " + quoteAll(args) + "\n")
	}
	b.WriteString(scriptTail)
	return b.String()
}

// words cuts a command line at its blanks.
func words(line string) []string { return strings.Fields(line) }

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

# have MODULE...: all of them are there already, so that asking a tool does not load them.
have() {
	[ -e /proc/modules ] || return 0
	for m in "$@"; do
		[ -e "/sys/module/$m" ] && continue
		grep -q "/$m\\.ko" "/lib/modules/$(uname -r)/modules.builtin" 2>/dev/null || return 1
	done
}

# take FILE COMMAND...: the output goes to FILE, or the message of a failed tool to FILE.err. A file
# that is there was taken in a better way.
take() {
	f=$dir/$1
	shift
	[ -e "$f" ] && return 0
	tool=$1
	[ "$tool" = env ] && tool=$3
	command -v "$tool" >/dev/null 2>&1 || return 0
	if "$@" >"$f.part" 2>"$f.err" || { [ "$tool" = sysctl ] && [ -s "$f.part" ]; }; then
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
