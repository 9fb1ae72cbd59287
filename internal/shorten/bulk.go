package shorten

import (
	"context"
	"time"

	"snowlink/internal/link"
	"snowlink/snowflake"
)

// Item is one link of a bulk, and what becomes of it.
type Item struct {
	Made
	minted bool // CreateAll sets the code and the time
	// Err says why there is no link. CreateAll skips an item that has an error already.
	Err error
}

// MintedItem returns an item under a code that CreateAll mints.
func MintedItem(l link.Link) Item { return Item{Made: Made{Coded: link.Coded{Link: l}}, minted: true} }

// ChosenItem returns an item under a code from [link.ParseCode], made now.
func ChosenItem(code string, l link.Link, now time.Time) Item {
	return Item{Made: chosen(code, l, now, newNonce())}
}

// CreateAll makes many links for the owner in few round trips. An item that fails gets one of the
// errors of Create or CreateChosen.
func (s *Shortener) CreateAll(ctx context.Context, owner string, items []Item) {
	waiting := make([]*Item, 0, len(items))
	for i := range items {
		if items[i].Err == nil {
			items[i].Link = items[i].OwnedBy(owner)
			waiting = append(waiting, &items[i])
		}
	}
	links := make([]link.Coded, 0, len(waiting))
	for try := 1; len(waiting) > 0; try++ {
		links = links[:0]
		ready := waiting[:0]
		for _, i := range waiting {
			if i.minted {
				id, err := s.mint()
				if err != nil {
					i.Err = err
					continue
				}
				i.Code, i.At = snowflake.Encode(id), id.Time()
			}
			ready = append(ready, i)
			links = append(links, i.Coded)
		}
		waiting = ready[:0] // those that need another code
		for n, err := range s.store.CreateAll(ctx, owner, links) {
			i := ready[n]
			again, err := s.settle(err, i.minted, try)
			if i.Err = err; again {
				waiting = append(waiting, i)
			}
		}
	}
}
