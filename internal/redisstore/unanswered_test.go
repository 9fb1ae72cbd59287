package redisstore_test

import (
	"errors"
	"testing"

	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/link"
	"snowlink/internal/redisstore"
)

// Redis refuses connections, as it does when it has too many. go-redis leaves commands without an
// error and an answer then. That is an outage: no link is missing or unreadable for it, and nothing
// counts as written.
func TestRefusedConnectionsAreAnOutage(t *testing.T) {
	r := fleettest.Redis(t)
	admin := fleettest.RedisClient(t, r.Addr)
	ctx := t.Context()
	if err := admin.ConfigSet(ctx, "requirepass", "secret").Err(); err != nil {
		t.Fatal(err)
	}
	store := openWith(t, "redis://:wrong@"+r.Addr, quiet, redisstore.Options{JournalMax: 1000, Archived: true})
	l := link.Coded{Code: "a", Link: link.Link{Target: "https://example.com/"}}
	record, err := store.Record("a", "https://example.com/")
	if err != nil {
		t.Fatal(err)
	}
	for name, do := range map[string]func() error{
		"Get":          func() error { _, err := store.Get(ctx, "a"); return err },
		"Read":         func() error { _, err := store.Read(ctx, "a"); return err },
		"Visit":        func() error { _, err := store.Visit(ctx, "a"); return err },
		"Create":       func() error { return store.Create(ctx, "o", "a", l.Link) },
		"CreateAll":    func() error { return store.CreateAll(ctx, "o", []link.Coded{l})[0] },
		"Update":       func() error { _, err := store.Update(ctx, "a", "00", l.Link); return err },
		"CreateFenced": func() error { return store.CreateFenced(ctx, "o", []redisstore.Fenced{{Coded: l, Pass: "p"}})[0] },
		"several CreateFenced": func() error {
			return errors.Join(store.CreateFenced(ctx, "o", []redisstore.Fenced{{Coded: l, Pass: "p"}, {Coded: l, Pass: "p"}})...)
		},
		"Miss":   func() error { return store.Miss(ctx, []string{"a"})[0].Err },
		"Mark":   func() error { return store.Mark(ctx, []string{"a"}) },
		"Marks":  func() error { return store.Mark(ctx, []string{"a", "b"}) },
		"Take":   func() error { _, err := store.Take(ctx, 10); return err },
		"Done":   func() error { return store.Done(ctx, []redisstore.Marked{{ID: "1-1"}}) },
		"Peek":   func() error { _, errs := store.Peek(ctx, []string{"a", "b"}); return errors.Join(errs...) },
		"Expire": func() error { return store.Expire(ctx, []redisstore.Archived{{Record: record}})[0] },
		"Settle": func() error {
			return store.Settle(ctx, []redisstore.Record{record}, []redisstore.Record{record})[0]
		},
		"Evictable": func() error { _, _, err := store.Evictable(ctx, []string{"a"}); return err },
		"Backlog":   func() error { _, _, err := store.Backlog(ctx); return err },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if p := recover(); p != nil {
					t.Errorf("panic: %v", p)
				}
			}()
			for range 3 {
				if err := do(); !errors.Is(err, link.ErrUnavailable) || errors.Is(err, link.ErrUnreadable) {
					t.Errorf("%v, want ErrUnavailable", err)
				}
			}
		})
	}
}
