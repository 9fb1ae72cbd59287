package dashboard_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"snowlink/internal/apikey"
	"snowlink/internal/dashboard"
	"snowlink/internal/embedded"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/link"
	"snowlink/internal/redisstore"
)

var keys = apikey.NewKeys("first", "second")

// sessions are those of a backend of its own.
func sessions(t *testing.T, redisURL string) *dashboard.Sessions {
	t.Helper()
	conn := fleettest.Conn(t, redisURL, slog.New(slog.DiscardHandler))
	return dashboard.NewSessions(redisstore.New(conn, redisstore.Options{}), keys)
}

func find(t *testing.T, secret string) *apikey.Key {
	t.Helper()
	key, ok := keys.Find([]byte(secret))
	if !ok {
		t.Fatalf("no key %q", secret)
	}
	return key
}

func start(t *testing.T, s *dashboard.Sessions, at time.Time) (token string, session dashboard.Session) {
	t.Helper()
	token, session, err := s.Start(t.Context(), find(t, "first"), "Firefox on Linux", at)
	if err != nil {
		t.Fatal(err)
	}
	return token, session
}

// A Redis that is full and evicts what has a time to live signs nobody out. Somebody can sign in, to
// make room, and out.
func TestSessionsSurviveAFullRedis(t *testing.T) {
	t.Parallel()
	r := fleettest.Redis(t, "maxmemory 4mb", "maxmemory-policy volatile-lru")
	s, client := sessions(t, "redis://"+r.Addr), fleettest.RedisClient(t, r.Addr)
	token, session := start(t, s, time.Now())

	value := strings.Repeat("x", 10_000)
	client.Set(t.Context(), "victim", "", time.Hour)
	var full error
	for i := 0; full == nil && i < 10_000; i++ {
		full = client.Set(t.Context(), fmt.Sprint("filler:", i), value, 0).Err()
	}
	if full == nil || client.Exists(t.Context(), "victim").Val() > 0 {
		t.Fatalf("Redis is not full: %v", full)
	}
	if got, key, err := s.Find(t.Context(), token, time.Now()); err != nil || got != session || key.Name != "default" {
		t.Errorf("the session of before: %+v, %v", got, err)
	}
	second, _ := start(t, s, time.Now())
	if _, _, err := s.Find(t.Context(), second, time.Now()); err != nil {
		t.Errorf("a new session: %v", err)
	}
	if err := s.End(t.Context(), session.ID, ""); err != nil {
		t.Errorf("end: %v", err)
	}
	if _, _, err := s.Find(t.Context(), token, time.Now()); !errors.Is(err, dashboard.ErrNoSession) {
		t.Errorf("after its end: %v", err)
	}
}

// A session ends after 12 hours, for all backends. What Redis keeps of it goes with the next one.
func TestSessionsEnd(t *testing.T) {
	t.Parallel()
	r := fleettest.Redis(t)
	a, b := sessions(t, "redis://"+r.Addr), sessions(t, "redis://"+r.Addr)
	began := time.Now()
	token, session := start(t, a, began)
	if !session.Expires.Equal(session.Created.Add(12 * time.Hour)) {
		t.Errorf("%+v", session)
	}
	if _, _, err := b.Find(t.Context(), token, session.Expires.Add(-time.Millisecond)); err != nil {
		t.Errorf("before the end: %v", err)
	}
	if _, _, err := b.Find(t.Context(), token, session.Expires); !errors.Is(err, dashboard.ErrNoSession) {
		t.Errorf("at the end: %v", err)
	}
	if list, err := b.List(t.Context(), "", session.Expires); err != nil || len(list) != 0 {
		t.Errorf("List = %v, %v", list, err)
	}
	start(t, b, session.Expires)
	client := fleettest.RedisClient(t, r.Addr)
	if n := client.HLen(t.Context(), "sessions").Val(); n != 1 {
		t.Errorf("Redis keeps %d sessions", n)
	}
	// Redis knows neither a token nor a key.
	kept := fmt.Sprint(client.HGetAll(t.Context(), "sessions").Val())
	if strings.Contains(kept, token) || strings.Contains(kept, fmt.Sprintf("%x", find(t, "first").Digest)) {
		t.Errorf("Redis keeps %s", kept)
	}
}

// Whoever can write to Redis cannot sign in by that, nor lengthen a session or move it to another name.
func TestForgedSessions(t *testing.T) {
	t.Parallel()
	r := fleettest.Redis(t)
	s, client := sessions(t, "redis://"+r.Addr), fleettest.RedisClient(t, r.Addr)
	token, session := start(t, s, time.Now())
	other, another := start(t, s, time.Now())
	text := client.HGet(t.Context(), "sessions", session.ID).Val()
	for name, forged := range map[string]string{
		"that of another":   client.HGet(t.Context(), "sessions", another.ID).Val(),
		"a later end":       strings.Replace(text, fmt.Sprint(session.Expires.UnixMilli()), fmt.Sprint(session.Expires.UnixMilli()+1), 1),
		"another browser":   strings.Replace(text, "Linux", "Windows", 1),
		"another name":      strings.Replace(text, "default", "shop", 1),
		"an empty seal":     text[:strings.Index(text, `"seal":"`)] + `"seal":""}`,
		"nothing but names": `{"name":"default","expires":99999999999999}`,
	} {
		client.HSet(t.Context(), "sessions", session.ID, forged)
		if _, _, err := s.Find(t.Context(), token, time.Now()); forged == text || !errors.Is(err, dashboard.ErrNoSession) {
			t.Errorf("%s: %v", name, err)
		}
	}
	client.HSet(t.Context(), "sessions", session.ID, text)
	for _, token := range []string{token, other} {
		if _, _, err := s.Find(t.Context(), token, time.Now()); err != nil {
			t.Errorf("as it was: %v", err)
		}
	}
}

// A key name has a bounded number of sessions: a new one ends the oldest.
func TestSessionsAreBounded(t *testing.T) {
	t.Parallel()
	s := sessions(t, "redis://"+fleettest.Redis(t).Addr)
	const most = 50
	now := time.Now()
	var tokens []string
	for i := range most + 2 {
		token, _ := start(t, s, now.Add(time.Duration(i)*time.Second))
		tokens = append(tokens, token)
	}
	list, err := s.List(t.Context(), "default", now)
	if err != nil || len(list) != most {
		t.Fatalf("%d sessions, %v", len(list), err)
	}
	for i, token := range tokens {
		if _, _, err := s.Find(t.Context(), token, now); (err == nil) != (i >= 2) {
			t.Errorf("session %d: %v", i, err)
		}
	}
}

// Of all who have the token of an invitation, one gets in. So it is with the Redis of make run.
func TestInvite(t *testing.T) {
	t.Parallel()
	small, err := embedded.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(small.Close)
	r := fleettest.Redis(t)
	for name, url := range map[string]string{"Redis": "redis://" + r.Addr, "embedded": small.URL()} {
		t.Run(name, func(t *testing.T) {
			s := sessions(t, url)
			token, err := s.Invite(t.Context(), find(t, "second"))
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := s.Find(t.Context(), token, time.Now()); !errors.Is(err, dashboard.ErrNoSession) {
				t.Errorf("as the token of a session: %v", err)
			}
			var mu sync.Mutex
			var all sync.WaitGroup
			in := 0
			for range 8 {
				all.Go(func() {
					key, err := s.Invited(t.Context(), token)
					mu.Lock()
					defer mu.Unlock()
					switch {
					case err == nil && key.Digest == find(t, "second").Digest:
						in++
					case !errors.Is(err, dashboard.ErrNoSession):
						t.Errorf("%+v, %v", key, err)
					}
				})
			}
			all.Wait()
			if in != 1 {
				t.Errorf("%d got in", in)
			}
		})
	}
	s, client := sessions(t, "redis://"+r.Addr), fleettest.RedisClient(t, r.Addr)
	if _, err := s.Invite(t.Context(), find(t, "first")); err != nil {
		t.Fatal(err)
	}
	for _, key := range client.Keys(t.Context(), "invite:*").Val() {
		if ttl := client.TTL(t.Context(), key).Val(); ttl <= 14*time.Minute || ttl > 15*time.Minute {
			t.Errorf("it is valid for %s", ttl)
		}
	}
}

// While Redis is away, nothing says that a session has ended.
func TestSessionsWithoutRedis(t *testing.T) {
	t.Parallel()
	r := fleettest.Redis(t)
	s := sessions(t, "redis://"+r.Addr)
	token, session := start(t, s, time.Now())
	r.Kill()
	_, _, errFind := s.Find(t.Context(), token, time.Now())
	_, _, errStart := s.Start(t.Context(), find(t, "first"), "", time.Now())
	_, errList := s.List(t.Context(), "", time.Now())
	_, errInvited := s.Invited(t.Context(), token)
	_, _, errTry := s.Try(t.Context(), netip.MustParseAddr("192.0.2.1"))
	for _, err := range []error{errFind, errStart, errList, s.End(t.Context(), session.ID, ""), errInvited, errTry} {
		if !errors.Is(err, link.ErrUnavailable) || errors.Is(err, dashboard.ErrNoSession) {
			t.Errorf("%v", err)
		}
	}
}

func TestTokensThatAreNone(t *testing.T) {
	t.Parallel()
	r := fleettest.Redis(t)
	s, client := sessions(t, "redis://"+r.Addr), fleettest.RedisClient(t, r.Addr)
	_, session := start(t, s, time.Now())
	for _, token := range []string{"", "x", session.ID, strings.Repeat("a", 43), strings.Repeat("a", 10_000)} {
		if _, _, err := s.Find(t.Context(), token, time.Now()); !errors.Is(err, dashboard.ErrNoSession) {
			t.Errorf("%.50q: %v", token, err)
		}
	}
	// What somebody else wrote there is no session, and goes with the next one.
	client.HSet(t.Context(), "sessions", "odd", "{", "older", `{"name":"default"}`)
	if list, err := s.List(t.Context(), "", time.Now()); err != nil || len(list) != 1 {
		t.Errorf("List = %v, %v", list, err)
	}
	start(t, s, time.Now())
	if n := client.HLen(t.Context(), "sessions").Val(); n != 2 {
		t.Errorf("Redis keeps %d", n)
	}
}
