package redisstore

// The names of what stands in Redis, for tests and load tests that look there
// themselves.

// ChangesChannel is where a code is published when its link changes or goes.
const ChangesChannel = changesChannel

// LinkKey is the key of a link.
func LinkKey(code string) string { return linkKey(code) }

// JournalKey is the key of the list of an owner's links.
func JournalKey(owner string) string { return journalKey(owner) }
