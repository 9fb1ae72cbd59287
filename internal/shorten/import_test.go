package shorten_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"snowlink/internal/link"
	"snowlink/internal/shorten"
	"snowlink/snowflake"
)

// rows are rows of plain links, which lead to target unless there is a space and a path after the
// code.
func rows(codes ...string) (rows []shorten.Row) {
	for i, code := range codes {
		code, path, _ := strings.Cut(code, " ")
		rows = append(rows, shorten.Row{Line: i + 1, Coded: link.Coded{Code: code, Link: link.Link{Target: target + path}}})
	}
	return rows
}

func results(rows []shorten.Row) (results []shorten.Result) {
	for _, r := range rows {
		results = append(results, r.Result)
	}
	return results
}

func (s *shop) wantPromised(want string) {
	s.t.Helper()
	if got, err := s.store.Promised(s.t.Context(), "import:"+owner); got != want || err != nil {
		s.t.Errorf("promised: %q, %v, want %q", got, err, want)
	}
}

func TestImport(t *testing.T) {
	s := newShop(t)
	s.taken("taken")
	if err := s.store.Create(t.Context(), owner, "same", plain); err != nil {
		t.Fatal(err)
	}
	for _, dryRun := range []bool{true, false} {
		batch := rows("new", "taken", "same", "wrong", "twice", "twice", "other", "other x")
		batch[3].Result = shorten.ResultInvalid
		if err := s.Import(t.Context(), owner, batch, dryRun); err != nil {
			t.Fatal(err)
		}
		want := []shorten.Result{"created", "conflict", "exists", "invalid", "created", "created", "created", "created"}
		if !dryRun { // of two rows with one code, the first one is stored
			want[7] = "conflict"
		}
		if got := results(batch); !slices.Equal(got, want) {
			t.Errorf("dry run %t: %q, want %q", dryRun, got, want)
		}
		if dryRun {
			s.wantTarget("new", "")
			s.wantListed("same")
		}
	}
	s.wantTarget("new", target)
	s.wantTarget("taken", "https://example.org/stranger")
	s.wantTarget("wrong", "")
	s.wantTarget("other", target)
	s.wantPromised("")
}

// Each row gets its owner and is listed there, and of two rows with one code the first is stored,
// whoever they are for. An equal link of somebody else is there already.
func TestImportForOthers(t *testing.T) {
	s := newShop(t)
	if err := s.store.Create(t.Context(), "blog", "theirs", plain); err != nil {
		t.Fatal(err)
	}
	batch := rows("a", "b", "b", "c", "d", "theirs")
	batch[1].For, batch[3].For = "blog", link.DefaultOwner
	if err := s.Import(t.Context(), owner, batch, false); err != nil {
		t.Fatal(err)
	}
	if got := results(batch); !slices.Equal(got, []shorten.Result{"created", "created", "exists", "created", "created", "exists"}) {
		t.Errorf("results %q", got)
	}
	s.wantListed("d", "a")
	for code, want := range map[string]string{"a": owner, "b": "blog", "c": "", "d": owner, "theirs": "blog"} {
		if got, err := s.store.Get(t.Context(), code); err != nil || got != (link.Link{Target: target, Owner: want}) {
			t.Errorf("%s is %+v, %v, want the owner %q", code, got, err, want)
		}
	}
}

// An import that breaks off leaves a promise of its codes. The next one lists those of them that
// were stored.
func TestFinishImport(t *testing.T) {
	s := newShop(t)
	s.store.createAll = func(ctx context.Context, owner string, links []link.Coded) []error {
		_ = s.unlisted.Create(ctx, owner, links[0].Code, links[0].Link)
		return slices.Repeat([]error{link.ErrFull}, len(links))
	}
	if err := s.Import(t.Context(), owner, rows("stored", "lost"), false); err == nil {
		t.Fatal("the import did not break off")
	}
	s.wantPromised("stored,lost")
	s.wantListed()
	s.store.createAll = nil
	for range 2 { // the second time there is nothing to finish
		if err := s.FinishImport(t.Context(), owner); err != nil {
			t.Fatal(err)
		}
		s.wantListed("stored")
		s.wantTarget("lost", "")
		s.wantPromised("")
	}
}

// An older release wrote a comma after each code, the last one too.
func TestFinishImportOfAnOlderRelease(t *testing.T) {
	s := newShop(t)
	if err := s.unlisted.Create(t.Context(), owner, "one", plain); err != nil {
		t.Fatal(err)
	}
	if _, err := s.store.Promise(t.Context(), "import:"+owner, "one,two,", time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := s.FinishImport(t.Context(), owner); err != nil {
		t.Fatal(err)
	}
	s.wantListed("one")
	s.wantPromised("")
}

// A panic in a look-up would end the process: no handler recovers what happens in another
// goroutine.
func TestAPanicInALookUpIsAnError(t *testing.T) {
	s := newShop(t)
	s.store.read = func(_ context.Context, code string) (link.State, error) {
		if code == "bad" {
			panic("a broken invariant")
		}
		return link.State{}, link.ErrNotFound
	}
	wantPanic := func(what string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "a broken invariant") || !strings.Contains(err.Error(), "import_test.go") {
			t.Errorf("%s: %v, want the panic and its stack", what, err)
		}
	}
	wantPanic("Import", s.Import(t.Context(), owner, rows("good", "bad", "bad"), true))
	if _, err := s.store.Promise(t.Context(), "import:"+owner, "good,bad", time.Hour); err != nil {
		t.Fatal(err)
	}
	wantPanic("FinishImport", s.FinishImport(t.Context(), owner))
	s.wantPromised("good,bad")
}

// A code that could be minted now says that it was imported, whatever its row says: so an archive
// keeps it from being given a second time.
func TestImportedCodesThatMayBeMintedYet(t *testing.T) {
	const code = "BCDEFGHIJK" // as any word of ten letters
	id, err := snowflake.Decode(code)
	if err != nil {
		t.Fatal(err)
	}
	at := id.Time()
	for after, minted := range map[time.Duration]bool{-time.Hour: false, 0: false, time.Minute: false, time.Minute + time.Millisecond: true, time.Hour: true} {
		for _, known := range []bool{false, true} {
			if l := shorten.Imported(code, plain, at, known, at.Add(after)); l.Chosen() == minted {
				t.Errorf("%s after its time, known %t: %+v", after, known, l)
			}
		}
	}
}
