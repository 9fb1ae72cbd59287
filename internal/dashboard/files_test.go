package dashboard_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/valyala/fasthttp"

	"snowlink/internal/dashboard"
)

// Every file of the page is served as it stands, and text is smaller on its way.
func TestFiles(t *testing.T) {
	t.Parallel()
	files := dashboard.NewFiles()
	served := files.Paths()
	err := fs.WalkDir(os.DirFS("web"), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !slices.Contains([]string{".html", ".css", ".js", ".json", ".svg", ".txt", ".png"}, filepath.Ext(path)) {
			return err
		}
		want, err := os.ReadFile(filepath.Join("web", path))
		if err != nil {
			return err
		}
		file, ok := files.Find(path)
		if !ok || !slices.Contains(served, path) {
			t.Errorf("%s is not served", path)
			return nil
		}
		plain, brotli, gzip := file.Body(""), file.Body("br"), file.Body("gzip")
		if !bytes.Equal(plain.Bytes, want) {
			t.Errorf("%s has %d bytes, want the file's %d", path, len(plain.Bytes), len(want))
		}
		if len(want) > 1000 && filepath.Ext(path) != ".png" {
			if len(brotli.Bytes) > len(want)*2/3 || len(gzip.Bytes) > len(want)*2/3 || len(brotli.Bytes) > len(gzip.Bytes) {
				t.Errorf("%s has %d bytes, %d with Brotli and %d with gzip", path, len(want), len(brotli.Bytes), len(gzip.Bytes))
			}
		}
		if text, err := fasthttp.AppendUnbrotliBytes(nil, brotli.Bytes); brotli.Encoding == "br" && (err != nil || !bytes.Equal(text, want)) {
			t.Errorf("%s is another file with Brotli: %v", path, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
