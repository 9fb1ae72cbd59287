package redisstore_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"snowlink/internal/link"
)

// Redis in front of an archive evicts what has a time to live all the time. A chore that somebody
// does, or did lately, is not done again because of that.
func TestClaimsAreNotEvicted(t *testing.T) {
	store, client := inFrontOfAnArchive(t, "maxmemory 3mb", "maxmemory-policy volatile-lru")
	ctx := t.Context()
	claim := func(chore string, d time.Duration) bool {
		t.Helper()
		ours, err := store.Claim(ctx, chore, d)
		if err != nil {
			t.Fatal(err)
		}
		return ours
	}
	if !claim("sweep", time.Hour) || claim("sweep", time.Hour) {
		t.Fatal("of two, not one claimed the sweep")
	}
	long := link.Link{Target: "https://example.com/" + strings.Repeat("x", 1000)}
	for i := 0; ; i++ {
		err := store.Create(ctx, link.DefaultOwner, fmt.Sprint("c", i), long)
		if errors.Is(err, link.ErrFull) {
			break
		} else if err != nil && !errors.Is(err, link.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	for i := range 100 { // room
		client.Del(ctx, fmt.Sprint("link:c", i))
	}
	if claim("sweep", time.Hour) {
		t.Error("a full Redis forgot who sweeps")
	}

	for range 2 {
		if !claim("verify", -time.Second) {
			t.Error("a claim that has ended is kept")
		}
	}
	store.KeepClaim(ctx, "verify", time.Hour)
	if claim("verify", time.Hour) {
		t.Error("a claim that was extended has ended")
	}
}
