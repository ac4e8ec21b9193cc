package xtables

import (
	"fmt"
	"strings"
)

// maxWord is the longest word that iptables-restore takes.
//
// iptables: iptables/xshared.h, PARAM_MAX is 8192 in newer, 1024 in older releases.
const maxWord = 8192

// maxWords bounds a line, as the argument vector of iptables-restore does.
const maxWords = 1024

// splitWords cuts a line into words as iptables-restore does: white space
// separates, double quotes keep it, a backslash takes the next byte as it is. Words
// without quotes are slices of the line.
//
// iptables: iptables/xshared.c, add_param_to_argv.
func splitWords(line string, words []word) ([]word, error) {
	for i := 0; i < len(line); {
		if c := line[i]; c == ' ' || c == '\t' {
			i++
			continue
		}
		w, n, err := oneWord(line[i:])
		if err != nil {
			return words, err
		}
		if len(words) >= maxWords {
			return words, fmt.Errorf("more than %d words in a line", maxWords)
		}
		words = append(words, w)
		i += n
	}
	return words, nil
}

// word is one word of a line; a quoted one is never an option.
type word struct {
	s      string
	quoted bool
}

func oneWord(s string) (word, int, error) {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case ' ', '\t':
			return word{s: s[:i]}, i, tooLong(i)
		case '"', '\\':
			return quotedWord(s)
		}
	}
	return word{s: s}, len(s), tooLong(len(s))
}

func quotedWord(s string) (word, int, error) {
	if n := plainQuoted(s); n > 0 {
		return word{s[1 : n-1], true}, n, tooLong(n - 2)
	}
	var b []byte
	quote, escaped := false, false
	i := 0
	for ; i < len(s); i++ {
		c := s[i]
		switch {
		case escaped:
			b, escaped = append(b, c), false
		case c == '\\':
			escaped = true
		case c == '"':
			quote = !quote
		case !quote && (c == ' ' || c == '\t'):
			return word{string(b), true}, i, tooLong(len(b))
		default:
			b = append(b, c)
		}
	}
	if quote {
		return word{}, 0, fmt.Errorf("a double quote is not closed")
	}
	return word{string(b), true}, i, tooLong(len(b))
}

// plainQuoted is the length of a word that is one pair of quotes with no backslash
// within, zero for any other.
func plainQuoted(s string) int {
	if s[0] != '"' {
		return 0
	}
	n := strings.IndexAny(s[1:], "\"\\") + 2
	if n < 2 || s[n-1] == '\\' || n < len(s) && s[n] != ' ' && s[n] != '\t' {
		return 0
	}
	return n
}

func tooLong(n int) error {
	if n > maxWord {
		return fmt.Errorf("a word is longer than %d bytes", maxWord)
	}
	return nil
}
