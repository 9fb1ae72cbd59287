// Package snowflake makes the IDs behind short codes, and the codes.
//
// Its decision: every process mints its own IDs, with no round trip and no shared counter. The node
// number in an ID keeps the IDs of two processes apart. So one thing must be right outside this
// package: no two running Generators may have the same node number.
//
// An ID is 63 bits and fits a non-negative int64. A code is that number in base 62, see [Encode].
package snowflake

import (
	"fmt"
	"sync"
	"time"

	"github.com/bwmarrin/snowflake"
)

// Epoch is the instant that IDs count from, 2026-01-01T00:00:00Z, in Unix milliseconds. It is part
// of every ID that was ever minted and must never change.
const Epoch = 1767225600000

// MaxNode is the highest node number.
const MaxNode = 1<<nodeBits - 1

const (
	timeBits = 41
	nodeBits = 10
	stepBits = 12
)

// An ID is unique among all IDs that were minted under distinct node numbers. IDs order by time,
// then node, then sequence:
//
//	 63  62                                        22 21         12 11            0
//	+---+--------------------------------------------+-------------+---------------+
//	| 0 |      milliseconds since Epoch (41 bits)     |  node (10)  | sequence (12) |
//	+---+--------------------------------------------+-------------+---------------+
//
// The milliseconds last until 2095-09-07.
type ID int64

// Time returns the millisecond in which the ID was minted, in UTC, by the clock of the node that
// minted it.
func (id ID) Time() time.Time {
	return time.UnixMilli(int64(id>>(nodeBits+stepBits)) + Epoch).UTC()
}

// Node returns the number of the node that minted the ID.
func (id ID) Node() int {
	return int(id>>stepBits) & MaxNode
}

// A Generator mints IDs under one node number. It is safe for concurrent use.
type Generator struct {
	node *snowflake.Node
}

// setLayout tells the library our layout. The library takes it from package variables, which every
// NewNode reads. So they are written once, before the first read.
var setLayout = sync.OnceFunc(func() {
	snowflake.Epoch = Epoch
	snowflake.NodeBits = nodeBits
	snowflake.StepBits = stepBits
})

// NewGenerator returns a Generator for the node, which must be from 0 to [MaxNode]. It fails when
// the clock reads a time that an ID cannot hold: before [Epoch], or after 2095-09-07.
//
// NewGenerator reads the wall clock, and the Generator never does again. It counts on the monotonic
// clock, so that setting the wall clock neither repeats an ID nor sends one back in time. But a new
// Generator for the same node, as after a restart, repeats IDs if the clock was set back in
// between. The caller has to prevent that.
func NewGenerator(node int) (*Generator, error) {
	if node < 0 || node > MaxNode {
		return nil, fmt.Errorf("node %d is not from 0 to %d", node, MaxNode)
	}
	// The library would mint negative IDs.
	if now := time.Now(); now.UnixMilli() < Epoch || now.UnixMilli() >= Epoch+1<<timeBits {
		return nil, fmt.Errorf("clock reads %s, which IDs cannot hold", now.UTC().Format(time.RFC3339))
	}
	setLayout()
	n, err := snowflake.NewNode(int64(node))
	if err != nil {
		return nil, fmt.Errorf("node %d: %w", node, err)
	}
	return &Generator{node: n}, nil
}

// Next returns an ID greater than every ID that the Generator returned before. A millisecond holds
// 4,096 of them: whoever asks for one more spins, and holds up the Generator's other callers, until
// the next millisecond begins.
func (g *Generator) Next() ID {
	return ID(g.node.Generate())
}
