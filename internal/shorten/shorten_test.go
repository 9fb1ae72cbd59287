package shorten_test

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"snowlink/internal/embedded"
	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/link"
	"snowlink/internal/redisstore"
	"snowlink/internal/shorten"
	"snowlink/snowflake"
)

const owner = "shop"

// shop is a Shortener over the real store over the embedded Redis.
type shop struct {
	*shorten.Shortener
	t     *testing.T
	store *hooked
	// unlisted is the same store without journals: what it stores is in no list.
	unlisted *redisstore.Store
	metrics  *prometheus.Registry
	ids      []snowflake.ID // the next ones that are minted; without any, no node ID is held
}

func newShop(t *testing.T) *shop {
	t.Helper()
	redis, err := embedded.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(redis.Close)
	open := func(o redisstore.Options) *redisstore.Store {
		return redisstore.New(fleettest.Conn(t, redis.URL(), slog.New(slog.DiscardHandler)), o)
	}
	store := open(redisstore.Options{JournalMax: 1000})
	s := &shop{t: t, store: &hooked{Store: store}, unlisted: open(redisstore.Options{}), metrics: prometheus.NewRegistry()}
	s.Shortener = shorten.New(s.store, s.store, func() (snowflake.ID, error) {
		if len(s.ids) == 0 {
			return 0, shorten.ErrNoNode
		}
		id := s.ids[0]
		s.ids = s.ids[1:]
		return id, nil
	}, s.metrics)
	return s
}

// hooked is a store that calls what a test sets instead of its own method.
type hooked struct {
	*redisstore.Store
	create    func(ctx context.Context, owner, code string, l link.Link) error
	createAll func(ctx context.Context, owner string, links []link.Coded) []error
	read      func(ctx context.Context, code string) (link.State, error)
}

func (h *hooked) Create(ctx context.Context, owner, code string, l link.Link) error {
	if h.create != nil {
		return h.create(ctx, owner, code, l)
	}
	return h.Store.Create(ctx, owner, code, l)
}

func (h *hooked) CreateAll(ctx context.Context, owner string, links []link.Coded) []error {
	if h.createAll != nil {
		return h.createAll(ctx, owner, links)
	}
	return h.Store.CreateAll(ctx, owner, links)
}

func (h *hooked) Read(ctx context.Context, code string) (link.State, error) {
	if h.read != nil {
		return h.read(ctx, code)
	}
	return h.Store.Read(ctx, code)
}

// taken gives the code to a link of somebody else.
func (s *shop) taken(code string) {
	s.t.Helper()
	if err := s.store.Store.Create(s.t.Context(), "stranger", code, link.Link{Target: "https://example.org/stranger"}); err != nil {
		s.t.Fatal(err)
	}
}

// wantTarget checks where the code leads; "" means that there is no link.
func (s *shop) wantTarget(code, want string) {
	s.t.Helper()
	got, err := s.store.Store.Get(s.t.Context(), code)
	if want == "" {
		if !errors.Is(err, link.ErrNotFound) {
			s.t.Errorf("%s leads to %q, %v, want no link", code, got.Target, err)
		}
	} else if got.Target != want || err != nil {
		s.t.Errorf("%s leads to %q, %v, want %q", code, got.Target, err, want)
	}
}

// wantListed checks which links the owner has in the journal, the newest first.
func (s *shop) wantListed(want ...string) {
	s.t.Helper()
	page, err := s.store.List(s.t.Context(), link.Query{Owner: owner, N: 100})
	var codes []string
	for _, l := range page.Links {
		codes = append(codes, l.Code)
	}
	if err != nil || !reflect.DeepEqual(codes, want) {
		s.t.Errorf("listed: %q, %v, want %q", codes, err, want)
	}
}

// wantCounted checks the two counters.
func (s *shop) wantCounted(creates, collisions float64) {
	s.t.Helper()
	families, err := s.metrics.Gather()
	if err != nil {
		s.t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		got[f.GetName()] = f.GetMetric()[0].GetCounter().GetValue()
	}
	if want := map[string]float64{"snowlink_creates_total": creates, "snowlink_collisions_total": collisions}; !reflect.DeepEqual(got, want) {
		s.t.Errorf("counted %v, want %v", got, want)
	}
}

// mintedIDs returns n IDs, all of them in the past.
func mintedIDs(n int) (ids []snowflake.ID) {
	for i := range n {
		ids = append(ids, snowflake.ID((i+1)<<40))
	}
	return ids
}

const target = "https://example.com/"

var plain = link.Link{Target: target}

// onceRequest is a create of a plain link under a minted code, with an idempotency key.
func onceRequest(key, body string) shorten.Request {
	return shorten.Request{
		Key: []byte(key), Body: []byte(body),
		Link: func(time.Time) (link.Link, error) { return plain, nil },
	}
}

func TestATakenCodeIsMintedAgain(t *testing.T) {
	for name, create := range map[string]func(*shop) (shorten.Made, error){
		"Create": func(s *shop) (shorten.Made, error) { return s.Create(s.t.Context(), owner, plain) },
		"CreateAll": func(s *shop) (shorten.Made, error) {
			items := []shorten.Item{shorten.MintedItem(plain)}
			s.CreateAll(s.t.Context(), owner, items)
			return items[0].Made, items[0].Err
		},
		"CreateOnce": func(s *shop) (shorten.Made, error) {
			return s.CreateOnce(s.t.Context(), owner, onceRequest("key", "body"), time.Now())
		},
	} {
		for collisions := range 3 {
			t.Run(name, func(t *testing.T) {
				s := newShop(t)
				s.ids = mintedIDs(3)
				for _, id := range s.ids[:collisions] {
					s.taken(snowflake.Encode(id))
				}
				want := s.ids[collisions]
				m, err := create(s)
				if err != nil || m.Code != snowflake.Encode(want) || !m.At.Equal(want.Time()) {
					t.Errorf("after %d collisions: %q at %s, %v, want %q at %s", collisions, m.Code, m.At, err, snowflake.Encode(want), want.Time())
				}
				s.wantTarget(m.Code, target)
				s.wantCounted(1, float64(collisions))
			})
		}
		t.Run(name+" finds none", func(t *testing.T) {
			s := newShop(t)
			s.ids = mintedIDs(4)
			for _, id := range s.ids {
				s.taken(snowflake.Encode(id))
			}
			_, err := create(s)
			if !errors.Is(err, shorten.ErrNoFreeCode) || !errors.Is(err, link.ErrExists) {
				t.Errorf("got %v, want ErrNoFreeCode, which wraps ErrExists", err)
			}
			s.wantCounted(0, 3)
		})
		t.Run(name+" without a node ID", func(t *testing.T) {
			s := newShop(t)
			if _, err := create(s); !errors.Is(err, shorten.ErrNoNode) {
				t.Errorf("got %v, want ErrNoNode", err)
			}
			s.wantCounted(0, 0)
		})
	}
}

func TestATakenChosenCodeIsRefused(t *testing.T) {
	s := newShop(t)
	s.taken("sale")
	if _, err := s.CreateChosen(t.Context(), owner, "sale", plain, time.Now()); !errors.Is(err, link.ErrExists) || errors.Is(err, shorten.ErrNoFreeCode) {
		t.Errorf("got %v, want ErrExists alone", err)
	}
	s.wantTarget("sale", "https://example.org/stranger")
	s.wantCounted(0, 0)
}

func TestCreateAll(t *testing.T) {
	s := newShop(t)
	s.ids = mintedIDs(3)
	first, second, third := snowflake.Encode(s.ids[0]), snowflake.Encode(s.ids[1]), snowflake.Encode(s.ids[2])
	s.taken(first)
	s.taken("taken")
	wrong := errors.New("a wrong item")
	items := []shorten.Item{
		shorten.MintedItem(plain), // collides, and is minted again after all others
		{Err: wrong},
		shorten.ChosenItem("free", plain, time.Now()),
		shorten.ChosenItem("taken", plain, time.Now()),
		shorten.ChosenItem("free", plain, time.Now()), // the same code twice
		shorten.MintedItem(plain),
	}
	s.CreateAll(t.Context(), owner, items)
	for i, want := range []struct {
		code string
		err  error
	}{{third, nil}, {"", wrong}, {"free", nil}, {"taken", link.ErrExists}, {"free", link.ErrExists}, {second, nil}} {
		if items[i].Code != want.code || !errors.Is(items[i].Err, want.err) {
			t.Errorf("item %d: %q, %v, want %q, %v", i, items[i].Code, items[i].Err, want.code, want.err)
		}
	}
	s.wantTarget("taken", "https://example.org/stranger")
	s.wantCounted(3, 1)
}
