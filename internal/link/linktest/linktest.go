// Package linktest is the contract of link.Store as a test. Every store there is has to pass it, so
// that all keep the same promises.
package linktest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"snowlink/internal/fleet/fleettest"
	"snowlink/internal/link"
)

// Store checks that store keeps the promises of link.Store. It uses codes and owners that begin
// with prefix, which must be new to the store.
func Store(t *testing.T, store link.Store, prefix string) {
	t.Helper()
	s := suite{store, prefix}
	t.Run("create", s.create)
	t.Run("options", s.options)
	t.Run("visits", s.visits)
	t.Run("update", s.update)
	t.Run("list", s.list)
	t.Run("bulk", s.bulk)
	t.Run("owners", s.owners)
}

// suite is a store under test. Its codes and owners begin with prefix.
type suite struct {
	link.Store
	prefix string
}

var (
	one = link.Link{Target: "https://example.com/?a=1&b=%20#f"}
	two = link.Link{Target: "https://example.org/"}
)

// inAnHour is a time that a store keeps to the millisecond.
func inAnHour() time.Time { return time.UnixMilli(time.Now().Add(time.Hour).UnixMilli()).UTC() }

func limited(visits int64) link.Link {
	return link.Link{Target: one.Target, Options: &link.Options{MaxVisits: visits}}
}

func (s suite) create(t *testing.T) {
	ctx := t.Context()
	t.Run("an unknown code is not found", func(t *testing.T) {
		code := s.prefix + "none"
		_, get := s.Get(ctx, code)
		_, read := s.Read(ctx, code)
		_, visit := s.Visit(ctx, code)
		_, update := s.Update(ctx, code, "00", one)
		for name, err := range map[string]error{"Get": get, "Read": read, "Visit": visit, "Update": update} {
			if !errors.Is(err, link.ErrNotFound) || errors.Is(err, link.ErrUnavailable) {
				t.Errorf("%s = %v, want ErrNotFound alone", name, err)
			}
		}
	})
	t.Run("a created link is found as it was given", func(t *testing.T) {
		s.mustCreate(t, "a", one)
		s.wantLink(t, "a", one)
	})
	t.Run("many links are found at once, in order", func(t *testing.T) {
		s.mustCreate(t, "f", one)
		s.mustCreate(t, "g", two)
		links, errs := s.GetAll(ctx, []string{s.prefix + "g", s.prefix + "none", s.prefix + "f"})
		if len(links) != 3 || !links[0].Equal(s.own(two)) || !links[2].Equal(s.own(one)) ||
			!slices.EqualFunc(errs, []error{nil, link.ErrNotFound, nil}, errors.Is) {
			t.Errorf("GetAll = %v, %v", links, errs)
		}
		if links, errs := s.GetAll(ctx, nil); len(links) != 0 || len(errs) != 0 {
			t.Errorf("GetAll of nothing = %v, %v", links, errs)
		}
	})
	t.Run("the same create again succeeds", func(t *testing.T) {
		s.mustCreate(t, "b", one)
		s.mustCreate(t, "b", one)
		s.wantLink(t, "b", one)
	})
	t.Run("another link under a taken code is refused and changes nothing", func(t *testing.T) {
		s.mustCreate(t, "c", one)
		for _, l := range []link.Link{two, limited(3), {Target: one.Target, Options: &link.Options{Title: "x"}}} {
			if err := s.Create(ctx, s.owner(""), s.prefix+"c", l); !errors.Is(err, link.ErrExists) {
				t.Errorf("Create = %v, want ErrExists", err)
			}
		}
		s.wantLink(t, "c", one)
	})
	t.Run("codes differ by case", func(t *testing.T) {
		s.mustCreate(t, "d", one)
		s.mustCreate(t, "D", two)
		s.wantLink(t, "d", one)
		s.wantLink(t, "D", two)
	})
	t.Run("of many creates of one code one wins", func(t *testing.T) {
		const creators = 50
		errs := make([]error, creators)
		links := make([]link.Link, creators)
		var wg sync.WaitGroup
		for i := range creators {
			links[i] = link.Link{Target: fmt.Sprintf("https://example.com/%d", i)}
			wg.Go(func() { errs[i] = s.Create(ctx, s.owner(""), s.prefix+"e", links[i]) })
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
		s.wantLink(t, "e", winner)
	})
}

func (s suite) options(t *testing.T) {
	for name, o := range map[string]link.Options{
		"status":        {Status: 308},
		"expires":       {Expires: inAnHour()},
		"max-visits":    {MaxVisits: 1 << 40},
		"forward-query": {ForwardQuery: true},
		"disabled":      {Disabled: true},
		"created":       {Created: time.UnixMilli(1_800_000_000_001).UTC()},
		"nonce":         {Nonce: 1<<32 - 1},
		"title":         {Title: "a \"title\"\nof two lines, ünïcode and \\n"},
		"tags":          {Tags: []string{"a", "b c", ""}},
		"all of them": {Status: 301, Expires: inAnHour(), MaxVisits: 7, ForwardQuery: true, Disabled: true,
			Created: time.UnixMilli(1).UTC(), Nonce: 1, Title: "t", Tags: []string{"x"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := link.Link{Target: one.Target, Options: &o}
			s.mustCreate(t, name, l)
			s.wantLink(t, name, l)
			s.mustCreate(t, name, l) // an equal one, again
			if state := s.read(t, name); !state.Link.Equal(s.own(l)) || state.VisitsLeft != o.MaxVisits {
				t.Errorf("Read = %+v, want %+v", state, l)
			}
		})
	}
	t.Run("none are a plain link", func(t *testing.T) {
		s.mustCreate(t, "plain", link.Link{Target: one.Target, Options: &link.Options{}})
		s.mustCreate(t, "plain", one)
		s.wantLink(t, "plain", one)
	})
	t.Run("one that expired is found in its grace", func(t *testing.T) {
		l := link.Link{Target: one.Target, Options: &link.Options{Expires: inAnHour().Add(-2 * time.Hour)}}
		s.mustCreate(t, "expired", l)
		s.wantLink(t, "expired", l)
	})
	t.Run("one past its grace is forgotten", func(t *testing.T) {
		l := link.Link{Target: one.Target, Options: &link.Options{
			Expires: time.UnixMilli(time.Now().Add(-link.Grace).UnixMilli() + 200), MaxVisits: 3}}
		s.mustCreate(t, "past", l)
		fleettest.Eventually(t, 10*time.Second, "it is forgotten", func() bool {
			_, err := s.Read(t.Context(), s.prefix+"past")
			return errors.Is(err, link.ErrNotFound)
		})
	})
}

func (s suite) visits(t *testing.T) {
	ctx := t.Context()
	t.Run("a link without a limit has any number", func(t *testing.T) {
		s.mustCreate(t, "unlimited", one)
		for range 3 {
			if l, err := s.Visit(ctx, s.prefix+"unlimited"); err != nil || !l.Equal(s.own(one)) {
				t.Errorf("Visit = %v, %v", l, err)
			}
		}
	})
	t.Run("a limit is exact among many at once", func(t *testing.T) {
		// They are no more at once than the slowest store can serve in time.
		const visitors, visits, limit = 100, 10, 100
		l := limited(limit)
		s.mustCreate(t, "limited", l)
		var taken atomic.Int64
		var wg sync.WaitGroup
		for range visitors {
			wg.Go(func() {
				for range visits {
					switch got, err := s.Visit(ctx, s.prefix+"limited"); {
					case err == nil && got.Equal(s.own(l)):
						taken.Add(1)
					case !errors.Is(err, link.ErrGone):
						t.Errorf("Visit = %v, %v, want the link or ErrGone", got, err)
					}
				}
			})
		}
		wg.Wait()
		if got := taken.Load(); got != limit {
			t.Errorf("%d visits of a link of %d", got, limit)
		}
		s.wantLink(t, "limited", l) // it is still there
		s.wantLeft(t, "limited", 0)
	})
	t.Run("looking takes none", func(t *testing.T) {
		l := limited(1)
		s.mustCreate(t, "looked-at", l)
		for range 3 {
			s.wantLink(t, "looked-at", l)
			s.wantLeft(t, "looked-at", 1)
		}
		s.mustCreate(t, "looked-at", l) // nor does the same create again
		s.wantLeft(t, "looked-at", 1)
	})
	t.Run("the same create again gives none back", func(t *testing.T) {
		s.mustCreate(t, "again", limited(2))
		s.visit(t, "again")
		s.mustCreate(t, "again", limited(2))
		s.wantLeft(t, "again", 1)
	})
}

func (s suite) update(t *testing.T) {
	ctx := t.Context()
	// change updates the link under code from what it is.
	change := func(t *testing.T, code string, l link.Link) {
		t.Helper()
		got, err := s.Update(ctx, s.prefix+code, s.read(t, code).Version, l)
		if err != nil {
			t.Fatalf("Update = %v", err)
		}
		if now := s.read(t, code); got.Version != now.Version || got.VisitsLeft != now.VisitsLeft || !got.Link.Equal(now.Link) {
			t.Errorf("Update = %+v, and Read after it %+v", got, now)
		}
		s.wantLink(t, code, l) // at once: whoever changed it sees it
	}
	t.Run("a version tells whether the link changed", func(t *testing.T) {
		s.mustCreate(t, "version", limited(5))
		was := s.read(t, "version").Version
		s.visit(t, "version")
		if now := s.read(t, "version").Version; now != was || was == "" {
			t.Errorf("the version was %q before a visit and is %q after it", was, now)
		}
		change(t, "version", link.Link{Target: two.Target, Options: limited(5).Options})
		if now := s.read(t, "version").Version; now == was {
			t.Error("the version is the same after a change")
		}
	})
	t.Run("a change of another version is refused and changes nothing", func(t *testing.T) {
		s.mustCreate(t, "lost", one)
		was := s.read(t, "lost").Version
		change(t, "lost", two)
		if _, err := s.Update(ctx, s.prefix+"lost", was, one); !errors.Is(err, link.ErrChanged) {
			t.Errorf("Update = %v, want ErrChanged", err)
		}
		s.wantLink(t, "lost", two)
	})
	t.Run("of many changes of one version one wins", func(t *testing.T) {
		s.mustCreate(t, "race", one)
		was := s.read(t, "race").Version
		var won atomic.Int64
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				_, err := s.Update(ctx, s.prefix+"race", was, link.Link{Target: fmt.Sprintf("https://example.com/%d", i)})
				if err == nil {
					won.Add(1)
				} else if !errors.Is(err, link.ErrChanged) {
					t.Errorf("Update = %v, want nil or ErrChanged", err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Errorf("%d changes of one version succeeded, want 1", won.Load())
		}
	})
	t.Run("options come and go", func(t *testing.T) {
		s.mustCreate(t, "options", one)
		change(t, "options", link.Link{Target: two.Target, Options: &link.Options{Title: "x", Expires: inAnHour()}})
		change(t, "options", one)
	})
	t.Run("another limit keeps the visits that were given", func(t *testing.T) {
		s.mustCreate(t, "limit", one)
		change(t, "limit", limited(3))
		s.visit(t, "limit")
		change(t, "limit", limited(10))
		s.wantLeft(t, "limit", 9)
		change(t, "limit", link.Link{Target: two.Target, Options: limited(10).Options})
		s.wantLeft(t, "limit", 9)
		s.visit(t, "limit")
		change(t, "limit", limited(1))
		s.wantLeft(t, "limit", 0)
		if _, err := s.Visit(ctx, s.prefix+"limit"); !errors.Is(err, link.ErrGone) {
			t.Errorf("Visit = %v, want ErrGone", err)
		}
		change(t, "limit", one)
		s.visit(t, "limit")
	})
	t.Run("a deleted link is known and its code taken", func(t *testing.T) {
		s.mustCreate(t, "deleted", limited(3))
		deleted := link.Link{Options: &link.Options{Deleted: true}}
		change(t, "deleted", deleted)
		if err := s.Create(ctx, s.owner(""), s.prefix+"deleted", limited(3)); !errors.Is(err, link.ErrExists) {
			t.Errorf("Create = %v, want ErrExists", err)
		}
		s.wantLink(t, "deleted", deleted)
	})
}

func (s suite) list(t *testing.T) {
	ctx := t.Context()
	start := time.UnixMilli(time.Now().Add(-time.Hour).UnixMilli()).UTC()
	at := func(second int) time.Time { return start.Add(time.Duration(second) * time.Second) }
	// made is a link that was made at that second.
	made := func(second int, o link.Options) link.Link {
		o.Created = at(second)
		return link.Link{Target: one.Target, Options: &o}
	}
	t.Run("a stranger's is empty", func(t *testing.T) {
		page, err := s.List(ctx, link.Query{Owner: s.owner("nobody"), N: 10})
		if len(page.Links) != 0 || page.Next != "" || page.Total == nil || *page.Total != (link.Total{}) || err != nil {
			t.Errorf("List = %+v, %v", page, err)
		}
	})
	t.Run("what is no cursor is refused", func(t *testing.T) {
		for _, cursor := range []string{"x", "!", "LQ", "KDEtMA", "///"} {
			if _, err := s.List(ctx, link.Query{Owner: s.owner(""), Cursor: cursor, N: 10}); !errors.Is(err, link.ErrCursor) {
				t.Errorf("List(%q) = %v, want ErrCursor", cursor, err)
			}
		}
	})
	t.Run("in order, in pages that stay while links come", func(t *testing.T) {
		owner := s.owner("pages")
		var want []string
		for i := range 10 {
			want = append(want, fmt.Sprintf("%spage-%d", s.prefix, i))
			s.mustCreateFor(t, owner, want[i], made(i, link.Options{}))
		}
		slices.Reverse(want)
		for _, oldest := range []bool{false, true} {
			for _, n := range []int{1, 3, 100} {
				come := 0
				got := s.all(t, link.Query{Owner: owner, Oldest: oldest, N: n, To: at(10)}, func() {
					s.mustCreateFor(t, owner, fmt.Sprintf("%snew-%v-%d-%d", s.prefix, oldest, n, come), made(100+come, link.Options{}))
					come++
				})
				if oldest {
					slices.Reverse(got)
				}
				if !slices.Equal(got, want) {
					t.Errorf("by %d, oldest first %v: listed %v, want %v", n, oldest, got, want)
				}
			}
		}
		page, err := s.List(ctx, link.Query{Owner: owner, N: 1, Oldest: true})
		if err != nil || len(page.Links) != 1 || !page.Links[0].Link.Equal(made(0, link.Options{}).OwnedBy(owner)) {
			t.Errorf("List = %+v, %v", page, err)
		}
	})
	t.Run("rare ones among many, in pages", func(t *testing.T) {
		owner := s.owner("rare")
		links := make([]link.Coded, 900)
		var want []string
		for i := range links {
			links[i] = link.Coded{Code: fmt.Sprintf("%srare-%d", s.prefix, i), Link: made(i, link.Options{})}
			if i%250 == 0 {
				links[i].Target = "https://example.org/needle?in=hay"
				want = append(want, links[i].Code)
			}
		}
		slices.Reverse(want)
		for i, err := range s.CreateAll(ctx, owner, links) {
			if err != nil {
				t.Fatal(i, err)
			}
		}
		for _, n := range []int{1, 3, 1000} {
			if got := s.all(t, link.Query{Owner: owner, Words: "Needle hay", N: n}, nil); !slices.Equal(got, want) {
				t.Errorf("by %d: listed %v, want %v", n, got, want)
			}
		}
	})
	t.Run("only what is there and one's own", func(t *testing.T) {
		mine, theirs := s.owner("mine"), s.owner("theirs")
		s.mustCreateFor(t, mine, s.prefix+"kept", made(1, link.Options{Tags: []string{"a", "b"}}))
		s.mustCreateFor(t, mine, s.prefix+"repeated", made(2, link.Options{Title: "A title"}))
		s.mustCreateFor(t, mine, s.prefix+"repeated", made(2, link.Options{Title: "A title"}))
		s.mustCreateFor(t, mine, s.prefix+"gone", made(3, link.Options{}))
		s.mustCreateFor(t, mine, s.prefix+"over", made(4, link.Options{Expires: inAnHour().Add(-2 * time.Hour)}))
		s.mustCreateFor(t, mine, s.prefix+"off", made(5, link.Options{Disabled: true}))
		s.mustCreateFor(t, theirs, s.prefix+"taken", made(6, link.Options{}))
		if err := s.Create(ctx, mine, s.prefix+"taken", made(7, link.Options{})); !errors.Is(err, link.ErrExists) {
			t.Fatalf("Create = %v, want ErrExists", err)
		}
		deleted := link.Link{Options: &link.Options{Deleted: true, Created: at(3)}}
		if _, err := s.Update(ctx, s.prefix+"gone", s.read(t, "gone").Version, deleted); err != nil {
			t.Fatal(err)
		}
		s.wantListed(t, link.Query{Owner: theirs}, "taken")
		for name, tt := range map[string]struct {
			q    link.Query
			want string
		}{
			"all":      {link.Query{}, "off repeated kept"},
			"active":   {link.Query{States: link.Active}, "repeated kept"},
			"disabled": {link.Query{States: link.Disabled}, "off"},
			"gone":     {link.Query{States: link.Gone}, "over gone"},
			"tag":      {link.Query{Tag: "b"}, "kept"},
			"words":    {link.Query{Words: "TITLE"}, "repeated"},
			"from":     {link.Query{From: at(2)}, "off repeated"},
			"to":       {link.Query{To: at(2)}, "kept"},
			"from, to": {link.Query{From: at(2), To: at(5)}, "repeated"},
			"nothing":  {link.Query{Tag: "b", Words: "title"}, ""},
		} {
			t.Run(name, func(t *testing.T) {
				tt.q.Owner = mine
				s.wantListed(t, tt.q, strings.Fields(tt.want)...)
			})
		}
	})
}

func (s suite) bulk(t *testing.T) {
	ctx := t.Context()
	t.Run("each has its own answer", func(t *testing.T) {
		owner := s.owner("bulk")
		s.mustCreate(t, "bulk-taken", one)
		made := func(ms int64, target string, o link.Options) link.Link {
			o.Created = time.UnixMilli(ms).UTC()
			return link.Link{Target: target, Options: &o}
		}
		errs := s.CreateAll(ctx, owner, []link.Coded{
			{Code: s.prefix + "bulk-a", Link: made(1, one.Target, link.Options{})},
			{Code: s.prefix + "bulk-taken", Link: link.Link{Target: two.Target, Options: &link.Options{Created: inAnHour()}}},
			{Code: s.prefix + "bulk-b", Link: made(2, one.Target, link.Options{MaxVisits: 2})},
			{Code: s.prefix + "bulk-a", Link: made(3, two.Target, link.Options{})},
			{Code: s.prefix + "bulk-c", Link: made(4, two.Target, link.Options{Title: "x", Expires: inAnHour()})},
		})
		want := []error{nil, link.ErrExists, nil, link.ErrExists, nil}
		if !slices.EqualFunc(errs, want, errors.Is) {
			t.Fatalf("CreateAll = %v, want %v", errs, want)
		}
		s.wantLink(t, "bulk-a", made(1, one.Target, link.Options{}).OwnedBy(owner))
		s.wantLink(t, "bulk-taken", one)
		s.wantLeft(t, "bulk-b", 2)
		s.wantListed(t, link.Query{Owner: owner}, "bulk-c", "bulk-b", "bulk-a")
	})
	t.Run("many", func(t *testing.T) {
		owner := s.owner("many")
		links := make([]link.Coded, 1234)
		for i := range links {
			links[i] = link.Coded{Code: fmt.Sprintf("%smany-%d", s.prefix, i), Link: link.Link{Target: fmt.Sprintf("https://example.com/%d", i)}}
		}
		for range 2 { // it is safe to repeat
			errs := s.CreateAll(ctx, owner, links)
			if len(errs) != len(links) || slices.ContainsFunc(errs, func(err error) bool { return err != nil }) {
				t.Fatalf("CreateAll = %d errors or nil, some not nil", len(errs))
			}
		}
		for _, l := range links {
			if got, err := s.Get(ctx, l.Code); err != nil || !got.Equal(l.OwnedBy(owner)) {
				t.Fatalf("Get(%s) = %v, %v", l.Code, got, err)
			}
		}
	})
	t.Run("none", func(t *testing.T) {
		if errs := s.CreateAll(ctx, s.owner(""), nil); len(errs) != 0 {
			t.Errorf("CreateAll = %v", errs)
		}
	})
}

func (s suite) owners(t *testing.T) {
	ctx := t.Context()
	mine, theirs := s.owner("has"), s.owner("has-not")
	t.Run("a plain link has its owner and no options", func(t *testing.T) {
		l := one.OwnedBy(theirs) // who creates it decides
		s.mustCreateFor(t, mine, s.prefix+"owned", l)
		for i, err := range s.CreateAll(ctx, mine, []link.Coded{{Code: s.prefix + "owned-bulk", Link: l}}) {
			if err != nil {
				t.Fatal(i, err)
			}
		}
		for _, code := range []string{"owned", "owned-bulk"} {
			got, err := s.Get(ctx, s.prefix+code)
			if want := one.OwnedBy(mine); err != nil || got != want || s.read(t, code).Link != want {
				t.Errorf("Get(%s) = %+v, %v, want %+v", code, got, err, want)
			}
		}
	})
	t.Run("that of the default owner has none", func(t *testing.T) {
		s.mustCreateFor(t, link.DefaultOwner, s.prefix+"default", one)
		if got, err := s.Get(ctx, s.prefix+"default"); err != nil || got != one || got.OwnerName() != link.DefaultOwner {
			t.Errorf("Get = %+v, %v, want %+v", got, err, one)
		}
	})
	t.Run("an equal link of another owner is refused and not listed", func(t *testing.T) {
		s.mustCreateFor(t, mine, s.prefix+"equal", one)
		if err := s.Create(ctx, theirs, s.prefix+"equal", one); !errors.Is(err, link.ErrExists) {
			t.Errorf("Create = %v, want ErrExists", err)
		}
		if errs := s.CreateAll(ctx, theirs, []link.Coded{{Code: s.prefix + "equal", Link: one}}); !errors.Is(errs[0], link.ErrExists) {
			t.Errorf("CreateAll = %v, want ErrExists", errs)
		}
		s.wantListed(t, link.Query{Owner: theirs})
		s.wantLink(t, "equal", one.OwnedBy(mine))
	})
	t.Run("changes keep it", func(t *testing.T) {
		s.mustCreateFor(t, mine, s.prefix+"kept-owner", one)
		for _, l := range []link.Link{two, limited(3), one.OwnedBy(theirs), {Options: &link.Options{Deleted: true}}} {
			if _, err := s.Update(ctx, s.prefix+"kept-owner", s.read(t, "kept-owner").Version, l); err != nil {
				t.Fatal(err)
			}
			s.wantLink(t, "kept-owner", l.OwnedBy(mine))
		}
	})
}

func (s suite) owner(name string) string { return s.prefix + "-owner-" + name }

// own returns l as the link of the owner that most tests have, unless it has another.
func (s suite) own(l link.Link) link.Link {
	if l.Owner != "" {
		return l
	}
	return l.OwnedBy(s.owner(""))
}

func (s suite) mustCreate(t *testing.T, code string, l link.Link) {
	t.Helper()
	s.mustCreateFor(t, s.owner(""), s.prefix+code, l)
}

func (s suite) mustCreateFor(t *testing.T, owner, code string, l link.Link) {
	t.Helper()
	if err := s.Create(t.Context(), owner, code, l); err != nil {
		t.Fatalf("Create(%s) = %v", code, err)
	}
}

func (s suite) visit(t *testing.T, code string) {
	t.Helper()
	if _, err := s.Visit(t.Context(), s.prefix+code); err != nil {
		t.Errorf("Visit(%s) = %v", code, err)
	}
}

func (s suite) read(t *testing.T, code string) link.State {
	t.Helper()
	state, err := s.Read(t.Context(), s.prefix+code)
	if err != nil {
		t.Fatalf("Read(%s) = %v", code, err)
	}
	return state
}

func (s suite) wantLeft(t *testing.T, code string, want int64) {
	t.Helper()
	if got := s.read(t, code).VisitsLeft; got != want {
		t.Errorf("%s has %d visits left, want %d", code, got, want)
	}
}

func (s suite) wantLink(t *testing.T, code string, want link.Link) {
	t.Helper()
	if got, err := s.Get(t.Context(), s.prefix+code); err != nil || !got.Equal(s.own(want)) {
		t.Errorf("Get(%s) = %+v, %v, want %+v", code, got, err, s.own(want))
	}
}

// all turns the pages of a list, and calls between before each next one.
func (s suite) all(t *testing.T, q link.Query, between func()) (codes []string) {
	t.Helper()
	for {
		page, err := s.List(t.Context(), q)
		if err != nil || len(page.Links) > q.N {
			t.Fatalf("List = %d links of %d, %v", len(page.Links), q.N, err)
		}
		for _, l := range page.Links {
			codes = append(codes, l.Code)
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			return codes
		}
		if between != nil {
			between()
		}
	}
}

// wantListed checks a list that has one page.
func (s suite) wantListed(t *testing.T, q link.Query, codes ...string) {
	t.Helper()
	q.N = 100
	page, err := s.List(t.Context(), q)
	if err != nil || page.Next != "" || page.Total == nil || *page.Total != (link.Total{Links: int64(len(codes))}) {
		t.Fatalf("List = %q, total %+v, %v", page.Next, page.Total, err)
	}
	var got, want []string
	for _, l := range page.Links {
		got = append(got, l.Code)
	}
	for _, code := range codes {
		want = append(want, s.prefix+code)
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed %v, want %v", got, want)
	}
}
