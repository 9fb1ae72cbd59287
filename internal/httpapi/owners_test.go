package httpapi_test

import (
	"encoding/csv"
	"fmt"
	"slices"
	"strings"
	"testing"

	"snowlink/internal/fleet/fleettest"
)

// owned is a backend with keys of several owners. as sends a request with one of their secrets.
func owned(t *testing.T) (b *backend, as func(secret, method, path, body string, headers ...string) answer) {
	b = newBackend(t)
	b.keys.SetNamed(parseKeys(t,
		keyLine("shop", "shop", "scopes=create,read,manage"),
		keyLine("shop", "shop-makes", "scopes=create"),
		keyLine("shop", "shop-reads", "scopes=read"),
		keyLine("shop", "shop-keeps", "scopes=manage"),
		keyLine("blog", "blog", "scopes=create,manage,read"),
		keyLine("ops", "ops", "scopes=create,read,manage,admin"),
		keyLine("audit", "audit", "scopes=read,admin"),
		keyLine("only", "only-admin", "scopes=admin"),
	))
	return b, func(secret, method, path, body string, headers ...string) answer {
		return b.do(method, path, body, append(headers, "API-Key: "+secret)...)
	}
}

// wantForbidden checks that the answer names the scope that is missing.
func wantForbidden(t *testing.T, a answer, scope string) {
	t.Helper()
	if detail := wantProblem(t, a, 403, "forbidden"); !strings.HasSuffix(detail, "the scope "+scope+".") {
		t.Errorf("detail %q, want the scope %s", detail, scope)
	}
}

// A scope allows what it says on the links of one's own name, and with admin on all.
func TestOwnersAndScopes(t *testing.T) {
	_, as := owned(t)
	for _, code := range []string{"shops", "blogs"} {
		if made := as(code[:4], "POST", "/links", with(`"code":"`+code+`"`), "Idempotency-Key: k"); wantCreated(t, made).Code != code ||
			!strings.Contains(made.body, `"owner":"`+code[:4]+`"`) {
			t.Errorf("created %s", made.body)
		}
	}
	if made := as(key, "POST", "/links", with(`"code":"apis"`)); wantCreated(t, made).Code != "apis" || strings.Contains(made.body, "owner") {
		t.Errorf("created %s", made.body)
	}
	operations := []struct{ method, path, body, scope string }{
		{"GET", "/links/%s", "", "read"},
		{"PATCH", "/links/%s", `{"title":"x"}`, "manage"},
	}
	has := map[string]string{"shop": "create,read,manage", "shop-makes": "create", "shop-reads": "read", "shop-keeps": "manage",
		"audit": "read,admin", "only-admin": "admin"}
	for secret, scopes := range has {
		for code, owner := range map[string]string{"shops": "shop", "blogs": "blog", "apis": "default"} {
			for _, o := range operations {
				a := as(secret, o.method, fmt.Sprintf(o.path, code), o.body)
				switch {
				case !strings.Contains(scopes, o.scope):
					wantForbidden(t, a, o.scope)
				case owner != "shop" && !strings.Contains(scopes, "admin"):
					wantForbidden(t, a, "admin")
				default:
					wantShown(t, a, 200)
				}
			}
		}
	}
	// Nobody but the owner and an administrator can delete a link, be it deleted already.
	for range 2 {
		wantForbidden(t, as("blog", "DELETE", "/links/shops", ""), "admin")
		if a := as("shop", "DELETE", "/links/shops", ""); a.status != 204 {
			t.Errorf("DELETE by the owner = %d %s", a.status, a.body)
		}
	}
	wantForbidden(t, as("blog", "GET", "/links/shops", ""), "admin")
	wantProblem(t, as("shop", "GET", "/links/shops", ""), 410, "gone")
	wantProblem(t, as("blog", "GET", "/links/none", ""), 404, "not_found")
	// A change by an administrator leaves the owner.
	if a := as("ops", "PATCH", "/links/blogs", `{"url":"https://example.org/"}`); a.status != 200 || !strings.Contains(a.body, `"owner":"blog"`) {
		t.Errorf("changed: %d %s", a.status, a.body)
	}
	wantShown(t, as("blog", "PATCH", "/links/blogs", `{"url":"https://example.net/"}`), 200)
	for _, code := range []string{"blogs", "apis"} {
		if a := as(key, "DELETE", "/links/"+code, ""); a.status != 204 {
			t.Errorf("DELETE by API_KEY = %d %s", a.status, a.body)
		}
	}
}

// A link that was made before links had owners is one of API_KEY. Who made it finds it in lists.
func TestLinksOfBefore(t *testing.T) {
	b, as := owned(t)
	code := wantCreated(t, as("shop", "POST", "/links", anyBody)).Code
	if err := fleettest.RedisClient(t, b.redis.Addr).Set(t.Context(), "link:"+code, "https://example.com/", 0).Err(); err != nil {
		t.Fatal(err)
	}
	wantForbidden(t, as("shop", "PATCH", "/links/"+code, `{"title":"x"}`), "admin")
	wantShown(t, as("ops", "GET", "/links/"+code, ""), 200)
	if a := as("shop", "GET", "/links", ""); !strings.Contains(a.body, code) {
		t.Errorf("the list is %s", a.body)
	}
	wantShown(t, as(key, "PATCH", "/links/"+code, `{"title":"x"}`), 200)
}

func TestListsAndExportsOfAnOwner(t *testing.T) {
	_, as := owned(t)
	for _, secret := range []string{"shop", "blog", key} {
		wantCreated(t, as(secret, "POST", "/links", anyBody, "Idempotency-Key: k"))
	}
	for _, path := range []string{"/links", "/links/export"} {
		for _, tt := range []struct{ secret, query, owner string }{
			{"shop", "", "shop"}, {"shop", "?owner=shop", "shop"}, {"shop-reads", "", "shop"},
			{"audit", "?owner=shop", "shop"}, {"audit", "?owner=blog", "blog"}, {"audit", "?owner=default", ""}, {key, "?owner=blog", "blog"}, {key, "", ""},
		} {
			a := as(tt.secret, "GET", path+tt.query, "")
			want := `,"owner":"` + tt.owner + `"`
			if tt.owner == "" {
				want = ""
			}
			if a.status != 200 || strings.Count(a.body, `"code"`) != 1 || strings.Count(a.body, `,"owner"`) != min(1, len(want)) || !strings.Contains(a.body, want) {
				t.Errorf("%s%s of %s = %d %s", path, tt.query, tt.secret, a.status, a.body)
			}
		}
		if a := as("audit", "GET", path, ""); a.status != 200 || strings.Contains(a.body, "code") {
			t.Errorf("an administrator's own are %s", a.body)
		}
		for _, secret := range []string{"shop", "blog"} {
			wantForbidden(t, as(secret, "GET", path+"?owner=default", ""), "admin")
		}
		wantProblem(t, as("audit", "GET", path+"?owner=", ""), 400, "invalid_field")
		wantProblem(t, as("audit", "GET", path+"?owner=a%20b", ""), 400, "invalid_field")
		wantProblem(t, as("audit", "GET", path+"?owners=shop", ""), 400, "invalid_field")
	}
	rows, err := csv.NewReader(strings.NewReader(as("audit", "GET", "/links/export?owner=shop", "", "Accept: text/csv").body)).ReadAll()
	if last := len(rows[0]) - 1; err != nil || len(rows) != 2 || rows[0][last] != "owner" || rows[1][last] != "shop" {
		t.Errorf("CSV %q, %v", rows, err)
	}
}

// Who imports links owns them, unless an administrator says otherwise.
func TestImportsHaveOwners(t *testing.T) {
	b, as := owned(t)
	results := func(secret, body string) (got []string) {
		t.Helper()
		a := as(secret, "POST", "/links/import", body)
		if a.status != 200 {
			t.Fatalf("import = %d %s", a.status, a.body)
		}
		for line := range strings.Lines(a.body) {
			_, result, ok := strings.Cut(line, `"result":"`)
			if ok {
				result, _, _ = strings.Cut(result, `"`)
				got = append(got, result)
			}
		}
		return got
	}
	row := func(code, rest string) string {
		return fmt.Sprintf("{\"url\":\"https://example.com/\",\"code\":%q%s}\n", code, rest)
	}
	want := func(code, owner string) {
		t.Helper()
		if a := as(key, "GET", "/links/"+code, ""); a.status != 200 || owner != "" && !strings.Contains(a.body, `"owner":"`+owner+`"`) ||
			owner == "" && strings.Contains(a.body, "owner") {
			t.Errorf("%s, want the owner %q: %s", code, owner, a.body)
		}
	}
	if got := results("shop", row("a-1", "")+row("a-2", `,"owner":"shop"`)+row("a-3", `,"owner":"blog"`)+row("a-4", `,"owner":"default"`)); !slices.Equal(got, []string{"created", "created", "invalid", "invalid"}) {
		t.Errorf("results %q", got)
	}
	if got := results("ops", row("b-1", "")+row("b-2", `,"owner":"blog"`)+row("b-3", `,"owner":"default"`)+row("b-4", `,"owner":"a b"`)+
		row("a-1", `,"owner":"blog"`)); !slices.Equal(got, []string{"created", "created", "created", "invalid", "exists"}) {
		t.Errorf("results %q", got)
	}
	for code, owner := range map[string]string{"a-1": "shop", "a-2": "shop", "b-1": "ops", "b-2": "blog", "b-3": ""} {
		want(code, owner)
	}
	if a := as("blog", "GET", "/links", ""); strings.Count(a.body, `"code"`) != 1 || !strings.Contains(a.body, `"b-2"`) {
		t.Errorf("the list of blog is %s", a.body)
	}
	// What was exported comes back as its owner's, as CSV too.
	export := as("audit", "GET", "/links/export?owner=blog", "", "Accept: text/csv").body
	fleettest.RedisClient(t, b.redis.Addr).Del(t.Context(), "link:b-2")
	if got := results(key, export); !slices.Equal(got, []string{"created"}) {
		t.Errorf("results %q of %s", got, export)
	}
	want("b-2", "blog")
}
