// Package dashboard is the page for people: its files, and who is signed in. It knows nothing of
// HTTP.
//
// It holds two decisions. A browser never keeps an API key: it has the token of a session, which no
// script can read and of which only the SHA-256 digest is kept. A session is sealed with
// its key: if the key is withdrawn or its secret changes, its sessions end, and if its scopes
// change, so does what they may do.
package dashboard

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"io/fs"
	"path"
	"strings"
	"sync"

	"github.com/valyala/fasthttp"
)

//go:embed web
var web embed.FS

// contentTypes are those of the files that are served, by the ends of their names. Others, such as
// declarations of types, are for those who work on the page.
var contentTypes = map[string]string{
	".html":        "text/html; charset=utf-8",
	".css":         "text/css; charset=utf-8",
	".js":          "text/javascript; charset=utf-8",
	".json":        "application/json",
	".svg":         "image/svg+xml",
	".txt":         "text/plain; charset=utf-8",
	".png":         "image/png",
	".ico":         "image/x-icon",
	".woff2":       "font/woff2",
	".webmanifest": "application/manifest+json",
}

// compressed are the ends of names of files that are compressed already.
var compressed = map[string]bool{".png": true, ".ico": true, ".woff2": true}

// Levels of compression. A file is compressed once in the life of a process, when it is first asked
// for: Brotli's highest level would take a second for all of them, and save 4 % over this one.
const (
	brotliLevel = 9
	gzipLevel   = 9
)

// A File is one file of the page.
type File struct {
	ContentType string
	plain       Body
	brotli      func() Body
	gzip        func() Body
}

// A Body is a file as it is sent.
type Body struct {
	Bytes    []byte // not to be changed
	Encoding string // as Content-Encoding has it, or ""
	ETag     string // strong: another one for each encoding
}

// Files are the files of the page. They may be used concurrently.
type Files struct{ byPath map[string]*File }

// NewFiles returns the files that are embedded.
func NewFiles() *Files {
	files := &Files{byPath: make(map[string]*File)}
	err := fs.WalkDir(web, "web", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		ext := path.Ext(name)
		contentType, served := contentTypes[ext]
		if !served {
			return nil
		}
		raw, err := web.ReadFile(name)
		if err != nil {
			return err
		}
		files.byPath[strings.TrimPrefix(name, "web/")] = newFile(contentType, raw, !compressed[ext])
		return nil
	})
	if err != nil {
		panic(err) // they are in the program
	}
	return files
}

func newFile(contentType string, raw []byte, compress bool) *File {
	digest := sha256.Sum256(raw)
	tag := base64.RawURLEncoding.EncodeToString(digest[:12])
	f := &File{ContentType: contentType, plain: Body{raw, "", `"` + tag + `"`}}
	encoded := func(encoding string, encode func() []byte) func() Body {
		return sync.OnceValue(func() Body {
			if b := encode(); compress && len(b) < len(raw) {
				return Body{b, encoding, `"` + tag + "-" + encoding + `"`}
			}
			return f.plain
		})
	}
	f.brotli = encoded("br", func() []byte { return fasthttp.AppendBrotliBytesLevel(nil, raw, brotliLevel) })
	f.gzip = encoded("gzip", func() []byte { return fasthttp.AppendGzipBytesLevel(nil, raw, gzipLevel) })
	return f
}

// Find returns the file at a path below /dashboard/. A path that has no dot in its last part is an
// address of the page: it shows index.html, which reads the address. There is nothing at others.
func (f *Files) Find(name string) (file *File, ok bool) {
	if file, ok = f.byPath[name]; ok {
		return file, true
	}
	if strings.Contains(path.Base("/"+name), ".") {
		return nil, false
	}
	return f.byPath["index.html"], true
}

// Paths returns the paths of all files, in no order.
func (f *Files) Paths() []string {
	var paths []string
	for p := range f.byPath {
		paths = append(paths, p)
	}
	return paths
}

// Body returns the file in the best encoding that the client takes, by its Accept-Encoding.
func (f *File) Body(acceptEncoding string) Body {
	var brotli, gzip bool
	for coding := range strings.SplitSeq(acceptEncoding, ",") {
		name, weight, _ := strings.Cut(coding, ";")
		if weight = strings.ReplaceAll(weight, " ", ""); strings.HasPrefix(weight, "q=0") && strings.Trim(weight, "q=0.") == "" {
			continue // it says that it does not take it
		}
		switch strings.TrimSpace(name) {
		case "br":
			brotli = true
		case "gzip":
			gzip = true
		}
	}
	switch {
	case brotli:
		return f.brotli()
	case gzip:
		return f.gzip()
	}
	return f.plain
}
