package model

import (
	"flag"
	"slices"
	"testing"
	"time"
)

var long = flag.Bool("long", false, "explore the larger worlds too, which takes minutes and some GiB of memory")

// Some millions of states are what a machine holds.
const mostStates = 6e6

func link(order, value uint8) record { return record{order: order, value: value} }

var (
	archiver = program{kind: archiving}
	mover    = program{kind: moving}
	reader   = program{kind: reading}
	deletes  = program{changing, deleted}
)

func mints(value uint8) program   { return program{minting, value} }
func chooses(value uint8) program { return program{choosing, value} }
func changes(value uint8) program { return program{changing, value} }

// What is there at first.
var (
	nowhere = world{}
	aNew    = world{redis: link(1, 'A')}                                   // not archived yet
	aHot    = world{redis: link(1, 'A'), ttl: archived, row: link(1, 'A')} // in both
	aCold   = world{row: link(1, 'A')}                                     // evicted
	anOld   = world{old: link(1, 'A'), grows: true}
	aBehind = world{redis: record{3, 'C', 2}, row: link(1, 'A')} // changed twice since
)

func (w world) runs(programs ...program) world { w.programs = programs; return w }
func (w world) with(options ...func(w *world)) world {
	for _, o := range options {
		o(&w)
	}
	return w
}

// What may go wrong.
func crash(w *world)    { w.crashes++ }
func failure(w *world)  { w.failure = true }
func cluster(w *world)  { w.apart = true }
func late(w *world)     { w.late = true }
func grace(w *world)    { w.grace = true }
func loss(w *world)     { w.loss = true }
func failover(w *world) { w.failover = true }
func inFlight(w *world) { w.inFlight = true }

var worlds = []struct {
	name string
	world
	long bool // explored by -long only
}{
	{"new, changed", nowhere.runs(mints('A'), changes('B'), reader, archiver, archiver), false},
	{"new, changed, crash", nowhere.runs(mints('A'), changes('B'), archiver, archiver).with(crash), false},
	{"new, in a Cluster", nowhere.runs(mints('A'), reader, archiver, archiver).with(cluster), false},
	{"hot, changed and changed back", aHot.runs(changes('B'), changes('A'), archiver, archiver), false},
	{"new, changed and changed back", aNew.runs(changes('B'), changes('A'), archiver, archiver), false},
	{"cold, changed twice", aCold.runs(changes('B'), changes('C'), reader, archiver), false},
	{"cold, changed and deleted", aCold.runs(changes('B'), deletes, reader, archiver), false},
	{"cold, deleted, crash", aCold.runs(deletes, reader, reader, archiver, archiver).with(crash), false},
	{"chosen twice", nowhere.runs(chooses('A'), chooses('B'), reader, archiver).with(failure), false},
	{"chosen twice, crash", nowhere.runs(chooses('A'), chooses('B'), deletes, archiver).with(crash), false},
	{"cold, chosen again", aCold.runs(chooses('B'), deletes, reader, archiver).with(failure), false},
	{"deleted, and chosen after the grace", aHot.runs(deletes, chooses('B'), reader, archiver).with(grace), false},
	{"lost", aHot.runs(changes('B'), changes('C'), reader, archiver).with(loss), false},
	{"lost before it was archived", nowhere.runs(chooses('A'), chooses('B'), archiver).with(loss), false},
	{"lost, an archiver in flight", aBehind.runs(changes('D'), archiver, archiver).with(loss, inFlight, crash), false},
	{"lost, an archiver in flight, read", aBehind.runs(reader, archiver, archiver).with(loss, inFlight, crash), false},
	{"failed over", aHot.runs(changes('B'), changes('C'), archiver).with(failover), false},
	{"new, failed over", aNew.runs(changes('B'), deletes, archiver).with(failover), false},
	{"deleted, failed over", aHot.runs(deletes, reader, archiver).with(failover), false},
	{"failed over, an archiver in flight", aBehind.runs(changes('D'), archiver, archiver).with(failover, inFlight), false},
	{"moved", anOld.runs(changes('B'), reader, archiver, mover).with(crash), false},
	{"moved by two", anOld.runs(changes('B'), reader, archiver, mover, mover).with(crash), false},
	{"moved, chosen again", anOld.runs(chooses('B'), deletes, archiver, mover).with(crash), false},

	{"new, changed, deleted, crash", nowhere.runs(mints('A'), changes('B'), deletes, archiver, archiver).with(crash), true},
	{"new, changed twice, crash", aNew.runs(changes('B'), changes('C'), reader, archiver, archiver).with(crash), true},
	{"cold, changed twice, crash", aCold.runs(changes('B'), changes('A'), reader, reader, archiver, archiver).with(crash), true},
	{"chosen twice, two archivers, crash", nowhere.runs(chooses('A'), chooses('B'), deletes, reader, archiver, archiver).with(crash), true},
	{"failed over, three changes", aHot.runs(changes('B'), changes('C'), changes('D'), archiver).with(failover), true},
	{"failed over, two archivers in flight", aHot.runs(changes('B'), changes('C'), reader, archiver, archiver).with(failover, inFlight), true},
	{"new, failed over, reader", aNew.runs(changes('B'), changes('C'), reader, archiver).with(failover), true},
	{"lost, two archivers in flight", aHot.runs(changes('B'), changes('C'), reader, archiver, archiver).with(loss, inFlight), true},
}

func TestProtocol(t *testing.T) {
	for _, w := range worlds {
		t.Run(w.name, func(t *testing.T) {
			if w.long && !*long {
				t.Skip("without -long")
			}
			m := &machine{world: w.world}
			began := time.Now()
			f := m.explore(mostStates, true)
			t.Logf("%d states, %d of them quiet, %v", f.states, f.quiet, time.Since(began).Round(time.Millisecond))
			if f.broken != nothing {
				t.Errorf("%v:\n%s", f.broken, f.trace)
			}
		})
	}
}

func named(t *testing.T, name string) world {
	for _, w := range worlds {
		if w.name == name {
			return w.world
		}
	}
	t.Fatalf("there is no world %q", name)
	return world{}
}

// A restored record goes by itself after an hour: this bounds how long readers get an old one where
// nothing is verified.
func TestTheHourBoundsWhatIsNotVerified(t *testing.T) {
	m := &machine{protocol: protocol{neverVerified: true}, world: named(t, "lost, an archiver in flight, read")}
	if f := m.explore(mostStates, true); f.broken != nothing {
		t.Errorf("%v:\n%s", f.broken, f.trace)
	}
}

// What the protocol does not stand. Each takes seconds in which a link is archived and evicted
// while a command for it is still on its way.
func TestLimits(t *testing.T) {
	for _, l := range []struct {
		name string
		world
		breaks invariant
	}{
		{"a code is imported while it is minted", nowhere.runs(mints('A'), chooses('B'), archiver), overwritten},
		{"a mint is carried out a second time, late", nowhere.runs(mints('A'), changes('B'), archiver).with(late), lostUpdate},
	} {
		t.Run(l.name, func(t *testing.T) {
			m := &machine{world: l.world}
			f := m.explore(mostStates, false)
			t.Logf("%v:\n%s", f.broken, f.trace)
			if f.broken != l.breaks {
				t.Errorf("broke %v, want %v", f.broken, l.breaks)
			}
		})
	}
}

var variants = []struct {
	name string
	protocol
	world  string
	breaks invariant
}{
	{"the row is guarded by the mark's number", protocol{markNumbers: true}, "new, changed and changed back", evictable},
	{"records have no number", protocol{noNumbers: true}, "new, changed and changed back", evictable},
	{"the upsert has no guard", protocol{unguarded: true}, "new, changed", evictable},
	{"the time to live is set unseen", protocol{expireAnything: true}, "new, changed", evictable},
	{"the mark is deleted first", protocol{unmarkFirst: true}, "new, changed, crash", unarchived},
	{"a mark ahead of its link is deleted at once", protocol{impatient: true}, "new, in a Cluster", unarchived},
	{"a refused upsert counts as archived", protocol{refusedIsArchived: true}, "failed over", lostUpdate},
	{"a refused upsert ends the work", protocol{refusedIsDone: true}, "failed over", restless},
	{"what refused an upsert always wins", protocol{rowWins: true}, "failed over, three changes", lostUpdate},
	{"the mark comes before its change", protocol{markFirst: true}, "hot, changed and changed back", unarchived},
	{"a change keeps the time to live", protocol{keepTTL: true}, "hot, changed and changed back", evictable},
	{"a delete sets the grace itself", protocol{graceAtOnce: true}, "cold, deleted, crash", evictable},
	{"a change leaves the pass", protocol{changeKeepsPass: true}, "cold, changed twice", evictable},
	{"a create leaves the pass", protocol{createKeepsPass: true}, "chosen twice", overwritten},
	{"a code taken again begins at number 0", protocol{againFromZero: true}, "deleted, and chosen after the grace", unexpected},
	{"SET NX alone restores", protocol{noPass: true}, "cold, changed twice", evictable},
	{"a pass is taken without a look", protocol{passUnseen: true}, "cold, changed twice", evictable},
	{"nothing is swept", protocol{neverSwept: true}, "new, changed, crash", unarchived},
	{"nothing is verified after a loss", protocol{neverVerified: true}, "lost, an archiver in flight", different},
	{"nothing is verified, and restored for long", protocol{neverVerified: true, restoreForLong: true}, "lost, an archiver in flight, read", different},
	{"no fence", protocol{noFence: true}, "cold, chosen again", overwritten},
	{"a fence that only looks", protocol{lookUpAlone: true}, "chosen twice", overwritten},
	{"the old home is asked last", protocol{newThenOld: true}, "moved", missing},
	{"the first home that has a row is believed", protocol{firstFound: true}, "moved", stale},
	{"rows come to their old home still", protocol{unfenced: true}, "moved", evictable},
	{"a move deletes first", protocol{deleteFirst: true}, "moved", missing},
	{"a read joins a query that was answered", protocol{joinsLate: true}, "cold, deleted, crash", resurrected},
	{"a code is reserved", protocol{reserves: true}, "chosen twice, crash", reserved},
	{"a code is reserved, and taken over", protocol{reserves: true, takesOver: true}, "chosen twice", overwritten},
	{"the archive is asked first", protocol{archiveFirst: true}, "new, changed", missing},
	{"no answer is taken for nothing", protocol{failureIsNone: true}, "cold, chosen again", missing},
}

func TestEachSafeguardIsNeeded(t *testing.T) {
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			m := &machine{protocol: v.protocol, world: named(t, v.world)}
			f := m.explore(mostStates, false)
			t.Logf("%v in %q, found among %d states:\n%s", f.broken, v.world, f.states, f.trace)
			if f.broken != v.breaks {
				t.Errorf("broke %v, want %v", f.broken, v.breaks)
			}
		})
	}
}

// What could keep a restore from bringing back what a change replaced meanwhile, and each invariant
// that breaks all the same.
func TestRestores(t *testing.T) {
	asked := []invariant{evictable, lostUpdate, outdated, resurrected, missing, stale}
	most := []invariant{evictable, lostUpdate, outdated, resurrected, stale}
	for _, r := range []struct {
		name string
		protocol
		breaks []invariant
	}{
		{"SET NX alone", protocol{noPass: true}, most},
		{"SET NX, and a second look at the row", protocol{noPass: true, readAgain: true}, most},
		{"SET NX, and changes look at the row", protocol{noPass: true, changeChecks: true}, most},
		{"SET NX, and both", protocol{noPass: true, readAgain: true, changeChecks: true}, most},
		{"SET NX under a lock on the row", protocol{noPass: true, rowLock: true}, nil},
		{"SET NX under a lock on the row that may end before", protocol{noPass: true, rowLock: true, lockEnds: true}, most},
		{"a pass taken without a look at the record", protocol{passUnseen: true}, most},
		{"a pass", protocol{}, nil},
	} {
		t.Run(r.name, func(t *testing.T) {
			var broken []invariant
			for _, v := range asked {
				for _, name := range []string{"cold, changed twice", "cold, changed and deleted"} {
					m := &machine{protocol: r.protocol, world: named(t, name), only: v}
					if f := m.explore(mostStates, true); f.broken != nothing {
						broken = append(broken, v)
						t.Logf("%v in %q:\n%s", f.broken, name, f.trace)
						break
					}
				}
			}
			if !slices.Equal(broken, r.breaks) {
				t.Errorf("broke %v, want %v", broken, r.breaks)
			}
		})
	}
}
