package shorten

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"snowlink/internal/link"
	"snowlink/snowflake"
)

const (
	// A store that cannot tell is asked importTries times in all: an import takes long enough to
	// meet a short outage.
	importTries = 4
	importWait  = 500 * time.Millisecond

	// unfinishedTime is how long the codes of an import that broke off are remembered.
	unfinishedTime = 7 * 24 * time.Hour
)

// Row is a row of an import, and what becomes of it.
type Row struct {
	Line int    // in the body; the first is 1
	For  string // the owner that the link gets; "" is who imports
	link.Coded
	Result Result
	Err    error // why the row cannot be stored, if Result is ResultInvalid
}

// Result says what becomes of a row.
type Result string

// The results of a row.
const (
	ResultCreated  Result = "created"
	ResultExists   Result = "exists"   // an equal link has the code
	ResultConflict Result = "conflict" // another link has the code, or had it within [link.Grace]
	ResultInvalid  Result = "invalid"
)

// Imported returns a link to import under the code it had, which must be from [link.ParseImported].
// created is when the link was made, or now if that is not known.
//
// A minted code says when its link was made, so the record need not. But any word of ten letters
// can be read as a minted code. So it counts as one only if it says a time in the past, and the
// time of the row if that is known. The time must be past link.MintedLately: a code that may be
// minted yet must say that it was not, or an archive takes the two for one.
func Imported(code string, l link.Link, created time.Time, known bool, now time.Time) link.Coded {
	if id, err := snowflake.Decode(code); err == nil && link.MintedShape(code) && id.Time().Before(now.Add(-link.MintedLately)) && (!known || id.Time().Equal(created)) {
		return link.Coded{Code: code, Link: l}
	}
	return chosen(code, l, created, 0).Coded // no nonce: the same row is the same link
}

// Import stores the rows that are valid and whose codes are free, unless it is a dry run, and sets
// what becomes of each row. It skips a row that is ResultInvalid already. Rows are looked up and
// stored together: a caller with many passes some hundred at a time. Whether the owner may import
// links for others, the caller has checked.
//
// An import that breaks off can be sent again: see FinishImport. The error is about the whole
// import.
func (s *Shortener) Import(ctx context.Context, owner string, rows []Row, dryRun bool) error {
	errs := make([]error, len(rows))
	for i := range rows {
		rows[i].Link = rows[i].OwnedBy(cmp.Or(rows[i].For, owner))
	}
	panicked := concurrently(len(rows), func(i int) { // so that look-ups share round trips
		if rows[i].Result != ResultInvalid {
			errs[i] = s.lookUp(ctx, &rows[i])
		}
	})
	if err := cmp.Or(panicked, errors.Join(errs...)); err != nil {
		return err
	}
	if dryRun {
		return nil
	}
	links := make([]link.Coded, 0, len(rows))
	free := make([]*Row, 0, len(rows))
	codes := make([]string, 0, len(rows))
	for i := range rows {
		if r := &rows[i]; r.Result == ResultCreated {
			links, free, codes = append(links, r.Coded), append(free, r), append(codes, r.Code)
		}
	}
	if len(links) == 0 {
		return nil
	}
	name, unfinished := importName(owner), strings.Join(codes, ",")
	err := patiently(ctx, func() error {
		_, err := s.promises.Promise(ctx, name, unfinished, unfinishedTime)
		return err
	})
	if err != nil {
		return err
	}
	for i, err := range s.createPatiently(ctx, links) {
		switch {
		case err == nil:
			s.created.Inc()
		case errors.Is(err, link.ErrExists): // an earlier row has the code, or somebody was faster
			if err := s.lookUp(ctx, free[i]); err != nil {
				return err
			}
		default:
			return err
		}
	}
	return patiently(ctx, func() error { return s.promises.Retract(ctx, name, unfinished) })
}

// FinishImport lists the links that an import of the owner stored before it broke off. Call it
// before the next Import: some of those links may be in no journal, and Import would find them and
// leave them alone. Each is listed for the owner that it has. If two imports run at once, one may
// list some links of the other twice.
func (s *Shortener) FinishImport(ctx context.Context, owner string) error {
	name, unfinished := importName(owner), ""
	err := patiently(ctx, func() (err error) {
		unfinished, err = s.promises.Promised(ctx, name)
		return err
	})
	if err != nil || unfinished == "" {
		return err
	}
	// Older releases wrote a comma after each code, the last one too.
	codes := strings.FieldsFunc(unfinished, func(r rune) bool { return r == ',' })
	states, errs := make([]link.State, len(codes)), make([]error, len(codes))
	panicked := concurrently(len(codes), func(i int) { // not Store.GetAll, which would make the links look used
		states[i], errs[i] = s.read(ctx, codes[i])
	})
	if panicked != nil {
		return panicked
	}
	var stored []link.Coded
	for i, err := range errs {
		if err == nil {
			stored = append(stored, link.Coded{Code: codes[i], Link: states[i].Link})
		} else if !errors.Is(err, link.ErrNotFound) && !errors.Is(err, link.ErrUnreadable) { // the import did not write that one
			return err
		}
	}
	for _, err := range s.createPatiently(ctx, stored) { // to create a link again lists it
		if err != nil && !errors.Is(err, link.ErrExists) { // a link that was changed just now is no longer of that import
			return err
		}
	}
	return patiently(ctx, func() error { return s.promises.Retract(ctx, name, unfinished) })
}

// importName is the key of the promise that names the codes an import is about to store. No key of
// CreateOnce is equal to it, because no digest has a colon.
func importName(owner string) string { return "import:" + owner }

// lookUp sets what becomes of the row if it is imported.
func (s *Shortener) lookUp(ctx context.Context, r *Row) error {
	state, err := s.read(ctx, r.Code)
	switch {
	case errors.Is(err, link.ErrNotFound):
		r.Result = ResultCreated
	case errors.Is(err, link.ErrUnreadable): // whatever the link is, it has the code
		r.Result = ResultConflict
	case err != nil:
		return err
	case equalButCreated(state.Link, r.Link):
		r.Result = ResultExists
	default:
		r.Result = ResultConflict
	}
	return nil
}

// equalButCreated reports whether two links are equal except for when they were made and by whom: a
// link that is imported twice without its time of creation has two of them.
func equalButCreated(a, b link.Link) bool {
	plain := func(o *link.Options) (p link.Options) {
		if o != nil {
			p = *o
		}
		p.Created, p.Nonce = time.Time{}, 0
		return p
	}
	return a.Target == b.Target && reflect.DeepEqual(plain(a.Options), plain(b.Options))
}

// concurrently calls f with each number below n, all at once, and waits for them. Its error is the
// first panic of f, with the stack. If nobody recovered a panic in a goroutine, it would end the
// process.
func concurrently(n int, f func(i int)) (panicked error) {
	var first sync.Once
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			defer func() {
				if v := recover(); v != nil {
					first.Do(func() { panicked = fmt.Errorf("panic: %v\n%s", v, debug.Stack()) })
				}
			}()
			f(i)
		})
	}
	wg.Wait()
	return panicked
}

// read is Store.Read that outlasts a short outage.
func (s *Shortener) read(ctx context.Context, code string) (state link.State, err error) {
	err = patiently(ctx, func() (err error) {
		state, err = s.store.Read(ctx, code)
		return err
	})
	return state, err
}

// createPatiently is Store.CreateAll that outlasts a short outage and leaves each link its owner. It
// stores them in order, so that of two rows with one code the first wins.
func (s *Shortener) createPatiently(ctx context.Context, links []link.Coded) (errs []error) {
	for len(links) > 0 {
		owner, n := links[0].OwnerName(), 1
		for n < len(links) && links[n].OwnerName() == owner {
			n++
		}
		var some []error
		_ = patiently(ctx, func() error {
			some = s.store.CreateAll(ctx, owner, links[:n]) // to repeat one is safe
			if i := slices.IndexFunc(some, isOutage); i >= 0 {
				return some[i]
			}
			return nil
		})
		errs, links = append(errs, some...), links[n:]
	}
	return errs
}

// patiently calls f, and again while f fails because of an outage, importTries times in all.
func patiently(ctx context.Context, f func() error) error {
	for try := 1; ; try++ {
		err := f()
		if try == importTries || !isOutage(err) {
			return err
		}
		select {
		case <-time.After(importWait):
		case <-ctx.Done():
			return err
		}
	}
}

func isOutage(err error) bool { return errors.Is(err, link.ErrUnavailable) }
