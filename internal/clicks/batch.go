package clicks

import "time"

// A Batch is what one producer counted in about a second, in the order in which it made them.
type Batch struct {
	// Producer is new with each start of a process: random, so that none can come back.
	Producer string
	// Number is 1 for the producer's first batch and one more for each other. Producer and Number
	// are what a batch is counted once by. Batches of one producer may arrive in another order than
	// they were made in, but by no more than ReorderMost.
	Number uint64
	// Ordered says that each of Counts and Misses has a Number of its own instead, which only grows
	// and begins with 1: of those that have arrived, those up to the last Number were applied. A queue
	// that numbers what it carries, as Kafka does, is the Producer then.
	Ordered bool

	Counts []Count
	Misses []Miss
}

// ReorderMost is how many batches of one producer may be under way at once.
const ReorderMost = 32

// A Count is the clicks of one link in one hour.
type Count struct {
	Number uint64 // see Batch.Ordered
	Code   string
	Owner  string // as link.Link.OwnerName
	Tags   []string
	Hour   time.Time // when it began, UTC

	// Clicks and Bots are exact, even where facts were dropped. Clicks counts people only.
	Clicks, Bots int64
	// Facts are the same clicks by what is known of them, bots with them. They may be fewer.
	Facts []FactCount
	// Visitors are hashes of the people who clicked, each once in this batch. They may be fewer. They
	// can be compared within one day (UTC) and with nothing else.
	Visitors []uint64
}

// A FactCount is how many clicks had the same facts.
type FactCount struct {
	Facts  Facts
	Clicks int64
}

// A Miss is how often a code was asked for that has no link.
type Miss struct {
	Number uint64 // see Batch.Ordered
	Hour   time.Time
	Code   string
	Clicks int64
}
