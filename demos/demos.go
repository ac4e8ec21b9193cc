// Package demos holds hosts to try hookpath on: three that work and five that are
// broken. Each is a snapshot directory that a script in tools/demos took from a real
// kernel. It stands beside the packet's way, as something to ask about.
package demos

import (
	"embed"
	"fmt"
	"io/fs"
)

//go:embed */*
var files embed.FS

// List returns the names of all demos, sorted.
func List() []string {
	dirs, err := files.ReadDir(".")
	if err != nil {
		panic(err) // the root of an embedded tree is always there
	}
	names := make([]string, len(dirs))
	for i, d := range dirs {
		names[i] = d.Name()
	}
	return names
}

// FS returns the snapshot directory of a demo. Beside the files of a snapshot it
// holds demo.json: title, packet (a sentence to ask) and about (what is to be seen).
func FS(name string) (fs.FS, error) {
	sub, err := fs.Sub(files, name)
	if err != nil {
		return nil, fmt.Errorf("demo %q: %w", name, err)
	}
	if _, err := fs.Stat(sub, "demo.json"); err != nil {
		return nil, fmt.Errorf("there is no demo %q", name)
	}
	return sub, nil
}
