package snapshot

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
)

// source is an archive's bytes: a zip is read from its end, the others from the
// beginning.
type source interface {
	io.Reader
	io.ReaderAt
}

// archive reads all regular files of an archive whose own size is known.
func (c *collector) archive(kind string, f source, size int64) error {
	if kind != ".tar" {
		c.limit = min(maxTotal, max(freeUnpacked, maxRatio*size))
	}
	switch kind {
	case ".zip":
		return c.zip(f, size)
	case ".tar":
		return c.tar(f)
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	defer z.Close()
	return c.tar(z)
}

func (c *collector) tar(r io.Reader) error {
	t := tar.NewReader(r)
	for n := 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if n > maxFiles {
			return fmt.Errorf("more than %d entries", maxFiles)
		}
		switch h.Typeflag {
		case tar.TypeReg:
			if err := c.add(h.Name, t, min(h.Size, maxClaimed)); err != nil {
				return err
			}
		case tar.TypeDir, tar.TypeXGlobalHeader:
		default:
			return fmt.Errorf("%q is neither a file nor a directory", h.Name)
		}
	}
}

func (c *collector) zip(f io.ReaderAt, size int64) error {
	z, err := zip.NewReader(f, size)
	if err != nil {
		return err
	}
	if len(z.File) > maxFiles {
		return fmt.Errorf("more than %d entries", maxFiles)
	}
	for _, e := range z.File {
		if strings.HasSuffix(e.Name, "/") {
			continue
		}
		if !e.Mode().IsRegular() {
			return fmt.Errorf("%q is neither a file nor a directory", e.Name)
		}
		if err := c.zipEntry(e); err != nil {
			return err
		}
	}
	return nil
}

func (c *collector) zipEntry(e *zip.File) error {
	r, err := e.Open()
	if err != nil {
		return fmt.Errorf("%s: %w", e.Name, err)
	}
	defer r.Close()
	return c.add(e.Name, r, int64(min(e.UncompressedSize64, maxClaimed)))
}
