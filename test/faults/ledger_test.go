package faults_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// entry is a link whose create was acknowledged.
type entry struct{ code, target string }

// ledger is the file of every acknowledged link. An entry counts once it is on
// disk. All methods may be called concurrently.
type ledger struct {
	mu      sync.Mutex
	waiting []entry // not yet synced
	synced  []entry

	syncing sync.Mutex // held by whoever writes
	file    *os.File
	err     error // the first one; nothing counts after it
}

// newLedger makes an empty ledger that ends with the test.
func newLedger(t *testing.T) *ledger {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "ledger"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return &ledger{file: file}
}

// add returns once e is synced. Callers that wait while another one syncs share the next sync.
func (l *ledger) add(e entry) error {
	l.mu.Lock()
	l.waiting = append(l.waiting, e)
	l.mu.Unlock()

	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.mu.Lock()
	batch := l.waiting
	l.waiting = nil
	l.mu.Unlock()
	if len(batch) == 0 || l.err != nil { // the one who synced before took e along
		return l.err
	}
	if l.write(batch); l.err == nil {
		l.mu.Lock()
		l.synced = append(l.synced, batch...)
		l.mu.Unlock()
	}
	return l.err
}

// addAside adds entries that are in no last: the load does not follow them.
func (l *ledger) addAside(entries []entry) error {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	if l.err == nil {
		l.write(entries)
	}
	return l.err
}

// write writes a batch and syncs it.
func (l *ledger) write(batch []entry) {
	var lines bytes.Buffer
	for _, e := range batch {
		fmt.Fprintf(&lines, "%s %s\n", e.code, e.target)
	}
	if _, l.err = l.file.Write(lines.Bytes()); l.err == nil {
		l.err = l.file.Sync()
	}
}

// addAll returns once all of some entries are synced.
func (l *ledger) addAll(t *testing.T, entries []entry) {
	t.Helper()
	var adding sync.WaitGroup
	for _, e := range entries {
		adding.Go(func() {
			if err := l.add(e); err != nil {
				t.Error(err)
			}
		})
	}
	adding.Wait()
}

// last returns the n entries that were synced last, or all if there are fewer.
func (l *ledger) last(n int) []entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.synced[max(0, len(l.synced)-n):]
}

// find returns the entry whose target begins with a prefix of its own.
func (l *ledger) find(prefix string) entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.synced[slices.IndexFunc(l.synced, func(e entry) bool { return strings.HasPrefix(e.target, prefix) })]
}

// read returns the entries in the file.
func (l *ledger) read() ([]entry, error) {
	text, err := os.ReadFile(l.file.Name())
	if err != nil {
		return nil, err
	}
	var entries []entry
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		code, target, ok := strings.Cut(lines.Text(), " ")
		if !ok {
			return nil, fmt.Errorf("the ledger's line %q is not an entry", lines.Text())
		}
		entries = append(entries, entry{code, target})
	}
	return entries, lines.Err()
}

func TestLedgerReadsBackWhatWasAdded(t *testing.T) {
	const writers, each = 8, 50
	l := newLedger(t)
	var done sync.WaitGroup
	for w := range writers {
		done.Go(func() {
			for i := range each {
				e := entry{fmt.Sprintf("%d-%d", w, i), "https://example.com/?a=b c"}
				if err := l.add(e); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done.Wait()
	entries, err := l.read()
	if err != nil {
		t.Fatal(err)
	}
	found := map[entry]bool{}
	for _, e := range entries {
		found[e] = true
	}
	if len(entries) != writers*each || len(found) != writers*each || !found[entry{"7-49", "https://example.com/?a=b c"}] {
		t.Errorf("%d entries, %d of them distinct, were read; %d were added", len(entries), len(found), writers*each)
	}
	if got := len(l.last(each)); got != each {
		t.Errorf("last(%d) has %d entries", each, got)
	}

	l.file.Close() // a disk that fails
	if err := l.add(entry{"late", "https://example.com/"}); err == nil || len(l.last(1000)) != writers*each {
		t.Error("an entry that could not be written counts")
	}
}
