package redisstore_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"snowlink/internal/clicks"
	"snowlink/internal/embedded"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/link"
)

// The Redis of make run keeps salts, too.
func TestSaltEmbedded(t *testing.T) {
	r, err := embedded.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	day := time.Now().UTC().Truncate(24 * time.Hour)
	a, err := open(t, r.URL(), quiet).Salt(t.Context(), day)
	b, errB := open(t, r.URL(), quiet).Salt(t.Context(), day)
	if err != nil || errB != nil || a != b {
		t.Errorf("%v, %v, equal: %v", err, errB, a == b)
	}
}

// All processes get one salt a day, and it is gone an hour after the day.
func TestSalt(t *testing.T) {
	t.Parallel()
	r := fleettest.Redis(t)
	client := fleettest.RedisClient(t, r.Addr)
	day := time.Now().UTC().Truncate(24 * time.Hour)
	salts := make([]clicks.Salt, 8)
	var wg sync.WaitGroup
	for i := range salts {
		s := open(t, "redis://"+r.Addr, quiet)
		wg.Go(func() {
			var err error
			if salts[i], err = s.Salt(t.Context(), day); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, salt := range salts {
		if salt != salts[0] || salt == (clicks.Salt{}) {
			t.Fatalf("the salts are %x", salts)
		}
	}
	key := "clicks:salt:" + day.Format(time.DateOnly)
	until, err := client.ExpireTime(t.Context(), key).Result()
	if want := day.Add(25 * time.Hour); err != nil || until != time.Duration(want.Unix())*time.Second {
		t.Errorf("it is gone at %v, %v", until, err)
	}
	s := open(t, "redis://"+r.Addr, quiet)
	if tomorrow, err := s.Salt(t.Context(), day.AddDate(0, 0, 1)); err != nil || tomorrow == salts[0] {
		t.Errorf("the next day has the same salt: %v", err)
	}
	if err := client.Set(t.Context(), key, "short", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Salt(t.Context(), day); !errors.Is(err, link.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	r.Kill()
	if _, err := s.Salt(t.Context(), day); !errors.Is(err, link.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}
