package apikey_test

import (
	"crypto/sha256"
	"slices"
	"testing"

	"snowlink/internal/apikey"
)

func TestFind(t *testing.T) {
	keys := apikey.NewKeys("first", "second")
	shop := apikey.Key{Name: "shop", Digest: sha256.Sum256([]byte("shop's")), Scopes: apikey.ScopeRead}
	narrowed := apikey.Key{Name: "narrowed", Digest: sha256.Sum256([]byte("second")), Scopes: apikey.ScopeRead}
	keys.SetNamed([]apikey.Key{shop, narrowed})
	for secret, want := range map[string]string{
		"first": apikey.DefaultOwner, "second": "narrowed", "shop's": "shop",
		"": "", "Shop's": "", "shop": "", string(shop.Digest[:]): "",
	} {
		key, ok := keys.Find([]byte(secret))
		if ok != (want != "") || ok && key.Name != want {
			t.Errorf("Find(%q) = %v, %v, want %q", secret, key, ok, want)
		}
	}
	if owners := keys.Owners(); !slices.Equal(owners, []string{apikey.DefaultOwner, "narrowed", "shop"}) {
		t.Errorf("Owners = %q", owners)
	}
	keys.SetNamed(nil)
	if _, ok := keys.Find([]byte("shop's")); ok {
		t.Error("a key that was replaced is still accepted")
	}
}
