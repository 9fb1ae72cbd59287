// Package linktest is the contract of link.Store as a test, so that every store
// there is keeps the same promises.
package linktest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"snowlink/server/internal/link"
)

// Store checks that store keeps the promises of link.Store. It uses codes that
// begin with prefix, which must be new to the store.
func Store(t *testing.T, store link.Store, prefix string) {
	t.Helper()
	ctx := context.Background()
	one := link.Link{Target: "https://example.com/?a=1&b=%20#f"}
	two := link.Link{Target: "https://example.org/"}

	t.Run("an unknown code is not found", func(t *testing.T) {
		if _, err := store.Get(ctx, prefix+"none"); !errors.Is(err, link.ErrNotFound) || errors.Is(err, link.ErrUnavailable) {
			t.Errorf("Get = %v, want ErrNotFound alone", err)
		}
	})
	t.Run("a created link is found as it was given", func(t *testing.T) {
		wantCreated(t, store, prefix+"a", one)
		wantLink(t, store, prefix+"a", one)
	})
	t.Run("many links are found at once, in order", func(t *testing.T) {
		wantCreated(t, store, prefix+"f", one)
		wantCreated(t, store, prefix+"g", two)
		links, errs := store.GetAll(ctx, []string{prefix + "g", prefix + "none", prefix + "f"})
		if len(links) != 3 || links[0] != two || links[2] != one ||
			len(errs) != 3 || errs[0] != nil || !errors.Is(errs[1], link.ErrNotFound) || errs[2] != nil {
			t.Errorf("GetAll = %v, %v", links, errs)
		}
		if links, errs := store.GetAll(ctx, nil); len(links) != 0 || len(errs) != 0 {
			t.Errorf("GetAll of nothing = %v, %v", links, errs)
		}
	})
	t.Run("the same create again succeeds", func(t *testing.T) {
		wantCreated(t, store, prefix+"b", one)
		wantCreated(t, store, prefix+"b", one)
		wantLink(t, store, prefix+"b", one)
	})
	t.Run("another link under a taken code is refused and changes nothing", func(t *testing.T) {
		wantCreated(t, store, prefix+"c", one)
		if err := store.Create(ctx, prefix+"c", two); !errors.Is(err, link.ErrExists) {
			t.Errorf("Create = %v, want ErrExists", err)
		}
		wantLink(t, store, prefix+"c", one)
	})
	t.Run("codes differ by case", func(t *testing.T) {
		wantCreated(t, store, prefix+"d", one)
		wantCreated(t, store, prefix+"D", two)
		wantLink(t, store, prefix+"d", one)
		wantLink(t, store, prefix+"D", two)
	})
	t.Run("of many creates of one code one wins", func(t *testing.T) {
		const creators = 50
		errs := make([]error, creators)
		links := make([]link.Link, creators)
		var wg sync.WaitGroup
		for i := range creators {
			links[i] = link.Link{Target: fmt.Sprintf("https://example.com/%d", i)}
			wg.Go(func() { errs[i] = store.Create(ctx, prefix+"e", links[i]) })
		}
		wg.Wait()
		var winner link.Link
		won := 0
		for i, err := range errs {
			if err == nil {
				winner, won = links[i], won+1
			} else if !errors.Is(err, link.ErrExists) {
				t.Errorf("Create = %v, want nil or ErrExists", err)
			}
		}
		if won != 1 {
			t.Fatalf("%d creates of one code succeeded, want 1", won)
		}
		wantLink(t, store, prefix+"e", winner)
	})
}

func wantCreated(t *testing.T, store link.Store, code string, l link.Link) {
	t.Helper()
	if err := store.Create(context.Background(), code, l); err != nil {
		t.Fatalf("Create(%s) = %v", code, err)
	}
}

func wantLink(t *testing.T, store link.Store, code string, want link.Link) {
	t.Helper()
	if got, err := store.Get(context.Background(), code); err != nil || got != want {
		t.Errorf("Get(%s) = %v, %v, want %v", code, got, err, want)
	}
}
