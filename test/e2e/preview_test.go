package e2e_test

import (
	"net/http"
	"strings"
	"testing"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
)

// Paths that are more than a code pass Nginx unchanged, and larger answers arrive whole.
func TestPreviewQRCodeAndContract(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{})
	c := client(t, "127.0.0.1")
	for code, target := range create(t, f, 1) {
		for _, tt := range []struct{ path, kind, begin, has string }{
			{"/" + code + "+", "text/html; charset=utf-8", "<!DOCTYPE html>", `href="` + target + `"`},
			{"/" + code + "/qr", "image/svg+xml", "<svg ", "</svg>"},
			{"/" + code + "/qr?format=png&size=1024", "image/png", "\x89PNG", "IEND"},
			{"/openapi.yaml", "application/yaml", "openapi: 3.1", "storage_full"},
		} {
			resp, body := do(t, c, "GET", f.URL+tt.path, "", "")
			if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != tt.kind || !strings.HasPrefix(body, tt.begin) || !strings.Contains(body, tt.has) {
				t.Errorf("GET %s: %s %s\n%.300s", tt.path, resp.Status, resp.Header.Get("Content-Type"), body)
			}
		}
	}
}
