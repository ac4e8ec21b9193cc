// Package demos are the snapshots that are part of the program: real namespaces as
// the usual tools print them, to try a trace on without a host at hand. It stands
// beside the packet's way and is read by the command line alone.
package demos

import (
	"embed"
	"io/fs"
)

//go:embed *
var files embed.FS

// List returns the names of the demos, sorted.
func List() []string {
	entries, err := files.ReadDir(".")
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		if _, err := fs.Stat(files, e.Name()+"/demo.json"); err == nil {
			names = append(names, e.Name())
		}
	}
	return names
}

// FS returns the files of a demo.
func FS(name string) (fs.FS, error) { return fs.Sub(files, name) }
