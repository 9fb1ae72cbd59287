package redisstats

import (
	"context"
	"time"

	"snowlink/internal/clicks"
)

// Settle does what Tend does with a day once it is long over.
func (s *Store) Settle(ctx context.Context, day time.Time) error { return s.settle(ctx, dayOf(day)) }

// Window is how far behind the newest batch another may arrive.
const Window = window

// Numbers returns a function that reports whether a number of one producer is new.
func Numbers(ordered bool) func(uint64) bool { return (&numbers{ordered: ordered}).add }

// Page makes the text of a page that batches were appended to, after it was rewritten if whole is
// true. All scopes are in the one page.
func Page(batches []clicks.Batch, whole bool) string {
	var text []byte
	for i := range batches {
		d := drawing{store: &Store{}, drafts: make(map[pageID]*draft)}
		for j := range batches[i].Counts {
			d.count(&batches[i].Counts[j])
		}
		for j := range d.drawn {
			d.drawn[j].page = pageID{}
		}
		d.flush(batches[i].Number)
		for _, draft := range d.drafts {
			text = draft.appendDelta(text, 1, false, 1, d.facts.list)
		}
	}
	if whole {
		text, _ = Rewritten(string(text))
	}
	return string(text)
}

// Rewritten returns a page as one segment.
func Rewritten(text string) ([]byte, error) {
	p, err := readPage(text, "", everyList)
	if err != nil {
		return nil, err
	}
	for _, s := range p.scopes {
		s.tidy(p.facts.list)
	}
	return p.appendWhole(nil), nil
}
