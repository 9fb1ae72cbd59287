package httpapi_test

import (
	"fmt"
	"strings"
	"testing"
)

func TestKeyDescribesItself(t *testing.T) {
	b := newBackend(t)
	b.keys.SetNamed(parseKeys(t, keyLine("shop", "shop-key", "scopes=read,create rate=1000/s")))
	for secret, want := range map[string]string{
		key:        `{"name":"default","scopes":["create","manage","read","admin"]}`,
		"shop-key": `{"name":"shop","scopes":["create","read"]}`,
	} {
		if a := b.do("GET", "/key", "", "API-Key: "+secret); a.status != 200 || a.body != want {
			t.Errorf("%d %s, want %s", a.status, a.body, want)
		}
	}
}

func TestCodeIsFree(t *testing.T) {
	b := newBackend(t)
	b.keys.SetNamed(parseKeys(t, keyLine("shop", "shop-key", "scopes=create")))
	ask := func(code string) string {
		a := b.do("GET", "/codes/"+code, "", "API-Key: shop-key")
		if a.status != 200 {
			t.Fatalf("%s: %d %s", code, a.status, a.body)
		}
		return a.body
	}
	free, taken := `{"code":"my-code","free":true}`, `{"code":"my-code","free":false}`
	if got := ask("my-code"); got != free {
		t.Errorf("before: %s", got)
	}
	wantCreated(t, b.create(with(`"code":"my-code"`)))
	if got := ask("my-code"); got != taken {
		t.Errorf("somebody else's: %s", got)
	}
	wantShown(t, b.manage("PATCH", "/links/my-code", `{"disabled":true}`), 200)
	if got := ask("my-code"); got != taken {
		t.Errorf("disabled: %s", got)
	}
	if a := b.manage("DELETE", "/links/my-code", ""); a.status != 204 {
		t.Fatalf("delete: %d %s", a.status, a.body)
	}
	if got := ask("my-code"); got != taken { // for 30 days
		t.Errorf("deleted: %s", got)
	}
	for _, code := range []string{"ab", strings.Repeat("a", 65), "8h4LRT53E8", "Links", "key", "codes", "Service"} {
		a := b.do("GET", "/codes/"+code, "", "API-Key: shop-key")
		wantProblem(t, a, 400, "invalid_code")
		// A create says the same.
		if c := b.create(with(fmt.Sprintf(`"code":%q`, code))); c.body != a.body {
			t.Errorf("%s: %s, and a create says %s", code, a.body, c.body)
		}
	}
}
