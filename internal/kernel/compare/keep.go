package compare

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"

	"github.com/hookpath/hookpath/internal/kernel"
)

// keep writes the scenario's snapshot and questions under dir, if that has a name.
func (p *pair) keep(dir string) error {
	if dir == "" {
		return nil
	}
	dir = filepath.Join(dir, strconv.FormatUint(p.seed, 10))
	for name, text := range p.files {
		file := filepath.Join(dir, "r", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
			return err
		}
		if err := os.WriteFile(file, text, 0o600); err != nil {
			return err
		}
	}
	after, err := p.run.Collect("r")
	if err != nil {
		return err
	}
	for name, text := range after {
		file := filepath.Join(dir, "after", filepath.Base(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return err
		}
	}
	var lines []byte
	for i := range p.asked {
		b, err := json.Marshal(line(&p.asked[i]))
		if err != nil {
			return err
		}
		lines = append(append(lines, b...), '\n')
	}
	return os.WriteFile(filepath.Join(dir, "packets"), lines, 0o600)
}

// line is a question in the form that trace --packets reads, all in one sequence.
func line(q *kernel.Question) map[string]any {
	m := map[string]any{"id": q.ID, "seq": "s"}
	if !q.Out {
		m["in"], m["frame"] = q.In, hex.EncodeToString(q.Frame)
		return m
	}
	m["out"], m["packet"], m["socket"] = true, hex.EncodeToString(q.Packet), q.Socket
	m["mark"], m["uid"], m["gid"], m["dev"] = q.Mark, q.UID, q.GID, q.Dev
	m["transparent"] = q.Transparent
	return m
}
