package redisstore

// The names of what stands in Redis, for tests and load tests that look there
// themselves.

// ChangesChannel is where a code is published when its link changes or goes.
const ChangesChannel = changesChannel

// LeaseTTL is how long a lease on a node ID outlives its last renewal.
const LeaseTTL = leaseTTL

// LinkKey is the key of a link.
func LinkKey(code string) string { return linkKey(code) }

// JournalKey is the key of the list of an owner's links.
func JournalKey(owner string) string { return journalKey(owner) }

// NodeKeys are the key of the lease on a node ID, and of the mark until when the ID
// was used, in Unix milliseconds.
func NodeKeys(node int) (lease, clock string) {
	keys := (&tenure{node: node}).keys()
	return keys[0], keys[1]
}
