package e2e_test

import (
	"fmt"
	"net/http"
	"testing"

	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
)

func TestLimits(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{})
	exempt := client(t, "127.0.0.1")
	tests := []struct {
		name         string
		method, path string
		requests     int // well above the burst, sent faster than the rate
	}{
		{"reads", "GET", "/ping", 1000},
		{"pictures", "GET", "/abc/qr", 200}, // too few for the limit of reads
		{"creates", "POST", "/generate_url", 300},
		{"creates by the other path", "POST", "/links", 300},
		{"changes", "PATCH", "/links/abc", 300},
		{"deletions", "DELETE", "/links/abc", 300},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			stranger := client(t, fmt.Sprintf("127.0.0.%d", 2+i))
			var refused int
			for range tt.requests {
				resp, body := do(t, stranger, tt.method, f.URL+tt.path, "", "")
				if resp.StatusCode != http.StatusTooManyRequests {
					continue
				}
				refused++
				wantProblem(t, resp, body, http.StatusTooManyRequests, "rate_limited")
				if resp.Header.Get("Retry-After") == "" {
					t.Error("429 without Retry-After")
				}
			}
			if refused == 0 || refused == tt.requests {
				t.Errorf("%d of %d requests from one address were refused", refused, tt.requests)
			}
			for range tt.requests {
				if resp, _ := do(t, exempt, tt.method, f.URL+tt.path, "", ""); resp.StatusCode == http.StatusTooManyRequests {
					t.Fatal("the loopback address was refused")
				}
			}
		})
	}
}

func TestLimitOfRequestsInFlight(t *testing.T) {
	const allowed, sent = 100, 130
	release := make(chan struct{})
	f := upstream(t, func(http.ResponseWriter, *http.Request) { <-release })
	c := client(t, "127.0.0.2")

	statuses := make(chan int, sent)
	for range sent {
		go func() {
			resp, err := c.Get(f.URL + "/abc")
			if err != nil {
				statuses <- 0
				return
			}
			resp.Body.Close()
			statuses <- resp.StatusCode
		}()
	}
	for range sent - allowed {
		if status := <-statuses; status != http.StatusTooManyRequests {
			t.Errorf("a request over the limit of %d got %d, want 429", allowed, status)
		}
	}
	close(release)
	for range allowed {
		if status := <-statuses; status != http.StatusOK {
			t.Errorf("a request within the limit of %d got %d, want 200", allowed, status)
		}
	}
}
