package httpapi_test

import (
	"strings"
	"testing"
	"time"

	"snowlink/internal/httpapi"
)

// The answer names keys and gives none away. Whatever a part says, it is what openapi.yaml describes.
func TestService(t *testing.T) {
	b := newBackend(t)
	b.keys.SetNamed(parseKeys(t, keyLine("shop", "shop-key", "scopes=create,read rate=100/m")))
	since := time.Now().UTC()
	const away = "It does not answer."
	for name, s := range map[string]httpapi.Service{
		"all is well": {
			Status: "ok", Reasons: []string{}, Version: "1.2.3",
			Redis:    []httpapi.RedisStatus{{Name: "links", Version: "7.0.15", Policy: "volatile-lru", Used: 5 << 30, Max: 8 << 30, Evicted: 3, Keys: 7, WithoutTTL: 2}, {Name: "state"}},
			Archive:  &httpapi.ArchiveStatus{Pending: 2, Lag: 0.5, Shards: []httpapi.Shard{{Shard: 1, Address: "db:5432/links", Rows: 9, Bytes: 8192}}},
			Clicks:   &httpapi.ClicksStatus{Queue: "redis", Waiting: 1, Lag: 0.1, Recorded: 5, Applied: 4},
			Backends: httpapi.BackendsStatus{List: []httpapi.Backend{{Node: 0, Host: "a", PID: 7, Since: &since, This: true}, {Node: 1023, Host: "odd"}}},
		},
		"all is away": {
			Status: "unavailable", Reasons: []string{"Redis does not answer"},
			Redis:    []httpapi.RedisStatus{{Name: "links", Error: away}},
			Archive:  &httpapi.ArchiveStatus{Error: away, Shards: []httpapi.Shard{{Shard: 1, Address: "db:5432/links", Error: away}}},
			Clicks:   &httpapi.ClicksStatus{Queue: "kafka", Error: away},
			Backends: httpapi.BackendsStatus{Error: away, List: []httpapi.Backend{}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b.service = s
			a := b.do("GET", "/service", "", "API-Key: "+key)
			if a.status != 200 || !strings.Contains(a.body, `"keys":[{"name":"default","scopes":["create","manage","read","admin"]},{"name":"default",`) ||
				!strings.Contains(a.body, `{"name":"shop","scopes":["create","read"],"rate":"100/m"}`) {
				t.Errorf("%d %s", a.status, a.body)
			}
			if strings.Contains(a.body, "s3cret") || strings.Contains(a.body, "sha256") || !strings.Contains(a.body, `"status":"`+s.Status+`"`) {
				t.Errorf("%s", a.body)
			}
		})
	}
	wantProblem(t, b.do("GET", "/service", "", "API-Key: shop-key"), 403, "forbidden")
	wantProblem(t, b.do("GET", "/service/you", "", "API-Key: shop-key"), 403, "forbidden")
}

func TestYou(t *testing.T) {
	b := newBackend(t)
	_, cookie := b.signIn(key)
	type you struct {
		Address, Country, Scheme, Host string
		Headers                        []struct{ Name, Value string }
	}
	ask := func(headers ...string) (y you, body string) {
		t.Helper()
		a := b.do("GET", "/service/you", "", headers...)
		if a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		decode(t, a.body, &y)
		return y, a.body
	}
	y, body := ask(cookie, "X-Forwarded-For: 203.0.113.7, 2001:db8::1", "X-Forwarded-Proto: https", "X-Forwarded-Host: sno.example:8443", "CF-IPCountry: de", "User-Agent: a\xff")
	if y.Address != "2001:db8::1" || y.Country != "DE" || y.Scheme != "https" || y.Host != "sno.example:8443" {
		t.Errorf("%+v", y)
	}
	if !strings.Contains(body, `{"name":"X-Forwarded-For","value":"203.0.113.7, 2001:db8::1"}`) || !strings.Contains(body, `{"name":"User-Agent","value":"a`) {
		t.Errorf("%s", body)
	}
	for _, secret := range []string{"API-Key: " + key, "X-API-Key: " + key, "Authorization: Bearer " + key, cookie} {
		name, value, _ := strings.Cut(secret, ": ")
		y, body := ask(secret, "Cookie: other=seen")
		if strings.Contains(body, value) || strings.Contains(strings.ToLower(body), `"name":"`+strings.ToLower(name)) || strings.Contains(body, "seen") {
			t.Errorf("%s: %s", name, body)
		}
		if y.Country != "" || y.Scheme != "http" || y.Host != "backend" {
			t.Errorf("without a proxy: %+v", y)
		}
	}
}
