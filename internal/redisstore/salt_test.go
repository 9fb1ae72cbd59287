package redisstore_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
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

// The append-only file of Redis has a salt until the salt of another day is made, and no longer.
func TestSaltsLeaveTheAppendOnlyFile(t *testing.T) {
	t.Parallel()
	r := fleettest.Redis(t)
	client, s := fleettest.RedisClient(t, r.Addr), open(t, "redis://"+r.Addr, quiet)
	day := time.Now().UTC().Truncate(24 * time.Hour)
	salt, err := s.Salt(t.Context(), day)
	if err != nil {
		t.Fatal(err)
	}
	inFiles := func() (found bool) {
		err := filepath.WalkDir(r.Data, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			content, err := os.ReadFile(path)
			found = found || bytes.Contains(content, salt[:])
			return err
		})
		return found || err != nil && !errors.Is(err, fs.ErrNotExist) // it is being rewritten
	}
	fleettest.Eventually(t, 10*time.Second, "the salt is in the file", inFiles)
	// Its day is over.
	if err := client.PExpire(t.Context(), "clicks:salt:"+day.Format(time.DateOnly), time.Millisecond).Err(); err != nil {
		t.Fatal(err)
	}
	fleettest.Eventually(t, 10*time.Second, "the salt is gone from memory", func() bool {
		return client.Exists(t.Context(), "clicks:salt:"+day.Format(time.DateOnly)).Val() == 0
	})
	if !inFiles() {
		t.Fatal("the file lost the salt by itself: this tests nothing")
	}
	long := day.AddDate(0, 0, -2).Format(time.DateOnly)
	if err := client.SetXX(t.Context(), "clicks:salts:since", long, 0).Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Salt(t.Context(), day.AddDate(0, 0, 1)); err != nil {
		t.Fatal(err)
	}
	fleettest.Eventually(t, 10*time.Second, "the salt is gone from the file", func() bool { return !inFiles() })
}
