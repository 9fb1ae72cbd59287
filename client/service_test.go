package client_test

import (
	"slices"
	"testing"

	"snowlink/client"
)

func TestKey(t *testing.T) {
	for secret, want := range map[string]client.Key{
		apiKey:        {Name: "default", Scopes: []string{"create", "manage", "read", "admin"}},
		"shop-secret": {Name: "shop", Scopes: []string{"create", "manage", "read"}},
	} {
		c := &client.Client{BaseURL: serviceURL, APIKey: secret}
		if got, err := c.Key(t.Context()); err != nil || got.Name != want.Name || !slices.Equal(got.Scopes, want.Scopes) {
			t.Errorf("Key = %+v, %v, want %+v", got, err, want)
		}
	}
	_, err := (&client.Client{BaseURL: serviceURL}).Key(t.Context())
	wantError(t, err, 401, "unauthorized")
}

func TestIsFree(t *testing.T) {
	c := newClient()
	if free, err := c.IsFree(t.Context(), "is-it-free"); err != nil || !free {
		t.Errorf("IsFree = %t, %v", free, err)
	}
	if _, err := c.Create(t.Context(), client.NewLink{URL: "https://example.com/", Code: "is-it-free"}); err != nil {
		t.Fatal(err)
	}
	if free, err := c.IsFree(t.Context(), "is-it-free"); err != nil || free {
		t.Errorf("IsFree of a code that is taken = %t, %v", free, err)
	}
	for _, code := range []string{"links", "a?b/c"} {
		_, err := c.IsFree(t.Context(), code)
		wantError(t, err, 400, "invalid_code")
	}
}

func TestService(t *testing.T) {
	c := newClient()
	s, err := c.Service(t.Context())
	if err != nil || s.Status == "" || s.Version == "" || len(s.Redis) != 1 || s.Redis[0].Used == 0 || s.Archive != nil || s.Clicks == nil {
		t.Fatalf("Service = %+v, %v", s, err)
	}
	this := 0
	for _, b := range s.Backends.List {
		if b.This && b.PID > 0 && !b.Since.IsZero() {
			this++
		}
	}
	if len(s.Backends.List) != 3 || this != 1 || len(s.Keys) != 3 {
		t.Errorf("backends %+v, keys %+v", s.Backends, s.Keys)
	}
	you, err := c.You(t.Context())
	if err != nil || you.Address != "127.0.0.1" || you.Scheme != "http" || "http://"+you.Host != serviceURL || len(you.Headers) == 0 {
		t.Errorf("You = %+v, %v", you, err)
	}
	_, err = (&client.Client{BaseURL: serviceURL, APIKey: "shop-secret"}).Service(t.Context())
	wantError(t, err, 403, "forbidden")
}
