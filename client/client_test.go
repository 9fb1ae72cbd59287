package client_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"snowlink/client"
	"snowlink/internal/fleet"
	"snowlink/internal/fleet/fleettest"
)

// The service that the tests use, through Nginx.
var serviceURL, apiKey string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	keys, err := writeKeys()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer os.Remove(keys)
	f, err := fleet.Start(context.Background(), fleet.Options{Env: []string{"API_KEYS_FILE=" + keys}})
	if missing, ok := errors.AsType[*fleet.MissingError](err); ok && os.Getenv("CI") != "true" {
		fmt.Println("skipped:", missing)
		return 0
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	serviceURL, apiKey = f.URL, f.APIKey
	status := m.Run()
	if status != 0 {
		fmt.Println(f.Logs(20))
	}
	if err := f.Close(); err != nil {
		fmt.Println(err)
		status = 1
	}
	return status
}

// writeKeys writes a keys file with two keys that have their own links only.
func writeKeys() (path string, err error) {
	f, err := os.CreateTemp("", "keys")
	if err != nil {
		return "", err
	}
	for _, name := range []string{"shop", "search"} {
		if _, err := fmt.Fprintf(f, "%s sha256:%x scopes=create,manage,read\n", name, sha256.Sum256([]byte(name+"-secret"))); err != nil {
			return "", err
		}
	}
	return f.Name(), f.Close()
}

func newClient() *client.Client { return &client.Client{BaseURL: serviceURL, APIKey: apiKey} }

// wantError checks the error of a call that the service refused.
func wantError(t *testing.T, err error, status int, code string) *client.Error {
	t.Helper()
	e, ok := errors.AsType[*client.Error](err)
	if !ok || e.Status != status || e.Code != code || e.Detail == "" {
		t.Fatalf("error %#v, want %d %s", err, status, code)
	}
	return e
}

func TestEveryOptionGoesThereAndBack(t *testing.T) {
	c, ctx := newClient(), t.Context()
	expires := time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
	made, err := c.Create(ctx, client.NewLink{
		URL: "https://example.com/#ü", Code: "every-option", ExpiresAt: expires, MaxVisits: 5, Status: 308,
		ForwardQuery: true, Title: "T", Tags: []string{"a", "b"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if time.Since(made.CreatedAt).Abs() > time.Minute {
		t.Errorf("created at %s", made.CreatedAt)
	}
	want := client.Link{
		ShortURL: serviceURL + "/every-option", Code: "every-option", URL: "https://example.com/#%C3%BC", CreatedAt: made.CreatedAt,
		ExpiresAt: expires, MaxVisits: 5, Status: 308, ForwardQuery: true, Title: "T", Tags: []string{"a", "b"},
	}
	if !reflect.DeepEqual(made, want) {
		t.Errorf("Create = %+v, want %+v", made, want)
	}
	if target, err := c.Follow(ctx, "every-option"); target != want.URL || err != nil {
		t.Errorf("Follow = %q, %v", target, err)
	}
	got, err := c.Get(ctx, "every-option")
	if want.VisitsLeft, want.Version = 4, got.Version; err != nil || got.Version == "" || !reflect.DeepEqual(got, want) {
		t.Errorf("Get = %+v, %v, want %+v", got, err, want)
	}

	later := expires.Add(time.Hour)
	changed, err := c.Update(ctx, "every-option", client.Change{
		URL: new("https://example.org/"), ExpiresAt: &later, MaxVisits: new(int64(8)), Status: new(301),
		ForwardQuery: new(false), Title: new("U"), Tags: &[]string{"c"}, Disabled: new(true), IfVersion: got.Version,
	})
	want = client.Link{
		ShortURL: want.ShortURL, Code: want.Code, URL: "https://example.org/", CreatedAt: made.CreatedAt, ExpiresAt: later,
		MaxVisits: 8, VisitsLeft: 7, Status: 301, Title: "U", Tags: []string{"c"}, Disabled: true, Version: changed.Version,
	}
	if err != nil || changed.Version == got.Version || !reflect.DeepEqual(changed, want) {
		t.Errorf("Update = %+v, %v, want %+v", changed, err, want)
	}
	_, err = c.Update(ctx, "every-option", client.Change{Title: new("V"), IfVersion: got.Version})
	wantError(t, err, 412, "precondition_failed")

	plain, err := c.Update(ctx, "every-option", client.Change{
		ExpiresAt: new(time.Time{}), MaxVisits: new(int64(0)), Status: new(0), Title: new(""), Tags: new([]string(nil)), Disabled: new(false),
	})
	want = client.Link{ShortURL: want.ShortURL, Code: want.Code, URL: want.URL, CreatedAt: made.CreatedAt, Version: plain.Version}
	if err != nil || !reflect.DeepEqual(plain, want) {
		t.Errorf("Update to a plain link = %+v, %v, want %+v", plain, err, want)
	}
	if same, err := c.Update(ctx, "every-option", client.Change{}); err != nil || !reflect.DeepEqual(same, plain) {
		t.Errorf("Update of nothing = %+v, %v", same, err)
	}
}

func TestCreateAgainWithAnIdempotencyKey(t *testing.T) {
	c, l := newClient(), client.NewLink{URL: "https://example.com/", IdempotencyKey: "again"}
	first, err1 := c.Create(t.Context(), l)
	second, err2 := c.Create(t.Context(), l)
	if err1 != nil || err2 != nil || !reflect.DeepEqual(first, second) {
		t.Errorf("%+v, %v, then %+v, %v", first, err1, second, err2)
	}
}

// The links need more than one request to be made, and more than one page to be listed.
func TestCreateAllAndList(t *testing.T) {
	c, ctx := newClient(), t.Context()
	const n = 10_050
	links := make([]client.NewLink, n)
	for i := range links {
		links[i] = client.NewLink{URL: fmt.Sprintf("https://example.com/%d", i), Tags: []string{"all"}}
	}
	results, err := c.CreateAll(ctx, links)
	if err != nil || len(results) != n {
		t.Fatalf("%d results, %v", len(results), err)
	}
	for i, r := range results {
		if r.Err != nil || r.Link.URL != links[i].URL {
			t.Fatalf("result %d: %+v", i, r)
		}
	}
	seen := make(map[string]bool)
	for l, err := range c.List(ctx, "all") {
		if err != nil {
			t.Fatal(err)
		}
		seen[l.Code] = true
	}
	for i, r := range results {
		if !seen[r.Link.Code] {
			t.Fatalf("link %d of %d is not listed", i, n)
		}
	}
	for range c.List(ctx, "all") {
		break // must be allowed at any time
	}
	if results, err := c.CreateAll(ctx, nil); len(results) != 0 || err != nil {
		t.Errorf("CreateAll of nothing = %v, %v", results, err)
	}
}

func TestSearch(t *testing.T) {
	// A key of its own: where others make thousands of links, a list takes several pages.
	c, ctx := &client.Client{BaseURL: serviceURL, APIKey: "search-secret"}, t.Context()
	began := time.Now().Add(-time.Millisecond)
	for _, code := range []string{"find-1", "find-2", "find-3"} {
		if _, err := c.Create(ctx, client.NewLink{URL: "https://example.com/needle", Code: code, Title: code, Tags: []string{"hay"}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Update(ctx, "find-2", client.Change{Disabled: new(true)}); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(ctx, "find-3"); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		q    client.Query
		want string
	}{
		"all":      {client.Query{}, "find-2 find-1"},
		"oldest":   {client.Query{Oldest: true}, "find-1 find-2"},
		"active":   {client.Query{State: "active"}, "find-1"},
		"disabled": {client.Query{State: "disabled"}, "find-2"},
		"gone":     {client.Query{State: "gone", Words: "find 3"}, "find-3"},
		"words":    {client.Query{Words: "FIND 1"}, "find-1"},
		"from":     {client.Query{From: began.Add(time.Hour)}, ""},
		"to":       {client.Query{To: began}, ""},
		"both":     {client.Query{From: began, To: began.Add(time.Hour)}, "find-2 find-1"},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.q.Limit = 1; tt.q.State != "gone" {
				tt.q.Tag = "hay"
			}
			var got []string
			for l, err := range c.Search(ctx, tt.q) {
				if err != nil {
					t.Fatal(err)
				}
				if l.Deleted != (tt.q.State == "gone") {
					t.Errorf("listed %+v", l)
				}
				got = append(got, l.Code)
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("found %q, want %q", got, tt.want)
			}
		})
	}
	page, err := c.Page(ctx, client.Query{Words: "needle", Tag: "hay", Limit: 1000})
	if err != nil || page.Next != "" || page.Total == nil || *page.Total != 2 || page.TotalIsEstimate || page.NewestOnly == nil || page.Incomplete {
		t.Errorf("Page = %+v, %v", page, err)
	}
}

func TestOwner(t *testing.T) {
	admin, ctx := newClient(), t.Context()
	shop := &client.Client{BaseURL: serviceURL, APIKey: "shop-secret"}
	made, err := shop.Create(ctx, client.NewLink{URL: "https://example.com/"})
	if err != nil || made.Owner != "shop" {
		t.Fatalf("Create = %+v, %v", made, err)
	}
	for l, err := range admin.Search(ctx, client.Query{Owner: "shop"}) {
		if err != nil || l.Code != made.Code || l.Owner != "shop" {
			t.Errorf("listed %+v, %v", l, err)
		}
	}
	theirs, err := admin.Create(ctx, client.NewLink{URL: "https://example.com/"})
	if err != nil || theirs.Owner != "" {
		t.Fatalf("Create = %+v, %v", theirs, err)
	}
	wantError(t, shop.Delete(ctx, theirs.Code), 403, "forbidden")
	for _, err := range shop.Search(ctx, client.Query{Owner: "default"}) {
		wantError(t, err, 403, "forbidden")
	}
	if err := admin.Delete(ctx, made.Code); err != nil {
		t.Error(err)
	}
}

// Links of the greatest length need more than one request for their bytes alone.
func TestCreateAllOfLongLinks(t *testing.T) {
	links := make([]client.NewLink, 9000)
	for i := range links {
		url := fmt.Sprintf("https://example.com/%d/", i)
		links[i] = client.NewLink{URL: url + strings.Repeat("&", 2048-len(url))} // in JSON by default \u0026
	}
	results, err := newClient().CreateAll(t.Context(), links)
	if err != nil || len(results) != len(links) {
		t.Fatalf("%d results, %v", len(results), err)
	}
	for i, r := range results {
		if r.Err != nil || r.Link.URL != links[i].URL {
			t.Fatalf("result %d: %+v", i, r)
		}
	}
}

func TestErrors(t *testing.T) {
	c, ctx := newClient(), t.Context()
	if _, err := c.Create(ctx, client.NewLink{URL: "https://example.com/", Code: "taken"}); err != nil {
		t.Fatal(err)
	}
	_, err := c.Create(ctx, client.NewLink{URL: "https://example.org/", Code: "taken"})
	wantError(t, err, 409, "code_taken")
	_, err = c.Create(ctx, client.NewLink{})
	wantError(t, err, 400, "invalid_url")
	_, err = c.Get(ctx, "a/b?c")
	wantError(t, err, 404, "not_found")
	for _, err = range c.List(ctx, ",") {
		wantError(t, err, 400, "invalid_field")
	}
	// What is at /ping is not a link.
	_, err = c.Follow(ctx, "ping")
	wantError(t, err, 200, "")

	stranger := &client.Client{BaseURL: serviceURL, APIKey: "wrong"}
	wantError(t, stranger.Delete(ctx, "taken"), 401, "unauthorized")
	if target, err := (&client.Client{BaseURL: serviceURL + "/"}).Follow(ctx, "taken"); target != "https://example.com/" || err != nil {
		t.Errorf("Follow without a key = %q, %v", target, err)
	}

	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := c.Get(ended, "taken"); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
}

func TestErrorSaysHowLongToWait(t *testing.T) {
	f := fleettest.Start(t, fleet.Options{Backends: 1, NoNginx: true})
	f.Redis.Kill()
	c := &client.Client{BaseURL: f.URL, APIKey: f.APIKey}
	_, err := c.Follow(t.Context(), "anything")
	if e := wantError(t, err, 503, "unavailable"); e.RetryAfter != time.Second {
		t.Errorf("RetryAfter = %s", e.RetryAfter)
	}
}

// A proxy between client and service may answer in its own way.
func TestErrorsThatAreNoProblems(t *testing.T) {
	body, kind := "<h1>Bad Gateway</h1>", "text/html"
	between := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(http.StatusBadGateway)
		fmt.Fprint(w, body)
	}))
	defer between.Close()
	c := &client.Client{BaseURL: between.URL}
	_, err := c.Get(t.Context(), "x")
	wantError(t, err, 502, "")
	body, kind = `{"type":`, "application/problem+json"
	_, err = c.Get(t.Context(), "x")
	wantError(t, err, 502, "")
}
