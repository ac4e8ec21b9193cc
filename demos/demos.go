// Package demos holds hosts to try hookpath on: three that work and five that are
// broken. Each is a snapshot directory that a script in tools/demos took from a real
// kernel. Under labs are several hosts at once, each lab a lab.yaml written by hand. The
// package stands beside the packet's way, as something to ask about.
package demos

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

//go:embed */*
var files embed.FS

// List returns the names of all demos, sorted.
func List() []string {
	return slices.DeleteFunc(folders("."), func(name string) bool { return name == labs })
}

// Labs returns the names of the labs, sorted.
func Labs() []string { return folders(labs) }

// labs is the folder of the labs.
const labs = "labs"

func folders(dir string) []string {
	dirs, err := files.ReadDir(dir)
	if err != nil {
		panic(err) // the folders of an embedded tree are always there
	}
	names := make([]string, len(dirs))
	for i, d := range dirs {
		names[i] = d.Name()
	}
	return names
}

// Lab returns the directory of a lab, in which lab.yaml lies.
func Lab(name string) (fs.FS, error) {
	if !slices.Contains(Labs(), name) {
		return nil, fmt.Errorf("there is no lab %q; there are %s", name, strings.Join(Labs(), ", "))
	}
	return fs.Sub(files, path.Join(labs, name))
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
